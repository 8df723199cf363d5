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

/** Make the children of `parent` match `items`, one each, in order; a child stays the same node as long as its key. */
export function sync(parent, items, template, keyOf, fill) {
  const old = new Map([...parent.children].map((child) => [child.key_, child]));
  items.forEach((item, index) => {
    const key = keyOf(item, index);
    const node = old.get(key) ?? copy(template);
    node.key_ = key;
    old.delete(key);
    fill(node, node.part_, item, index);
    if (parent.children[index] !== node) parent.insertBefore(node, parent.children[index] ?? null);
  });
  for (const node of old.values()) node.remove();
}
