// Making and changing what is shown. Knows templates and nodes, nothing of pools.
//
// What is shown may come from strangers, so it is only ever set as text, never as markup. What did not change is left
// alone, so that a selection, an open stack or the scroll position outlives an update.

export const byId = (id) => document.getElementById(id);

export function copy(template) {
  const node = byId(template).content.firstElementChild.cloneNode(true);
  node.part_ = Object.fromEntries([...node.querySelectorAll("[data-is]")].map((part) => [part.dataset.is, part]));
  return node;
}

export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/**
 * Make the children of `parent` match `items`, one each, in order; a child stays the same node as long as its key.
 * Children that are in the page itself, such as the head of a table, stay before them.
 */
export function sync(parent, items, template, keyOf, fill) {
  const own = [...parent.children].filter((child) => "key_" in child);
  const first = parent.children.length - own.length;
  const old = new Map(own.map((child) => [child.key_, child]));
  const focused = document.activeElement;
  items.forEach((item, index) => {
    const key = keyOf(item, index);
    const node = old.get(key) ?? copy(template);
    node.key_ = key;
    old.delete(key);
    fill(node, node.part_, item, index);
    const there = parent.children[first + index];
    if (there !== node) parent.insertBefore(node, there ?? null);
  });
  for (const node of old.values()) node.remove();
  // A node that is moved loses the focus.
  if (parent.contains(focused) && focused !== document.activeElement) focused.focus({ preventScroll: true });
}
