// Tabs of one pool: buttons, of which each shows one part. Knows buttons and what they show, nothing of pools.

let made = 0;

/** Show one of `panels`, which has the key of its button in `buttons`; `chosen` is called with the key of each choice. */
export function tabs(buttons, panels, chosen) {
  const keys = Object.keys(buttons);
  const choose = (key) => {
    for (const each of keys) {
      buttons[each].setAttribute("aria-selected", String(each === key));
      buttons[each].tabIndex = each === key ? 0 : -1; // the arrows lead to the others
      panels[each].hidden = each !== key;
    }
    chosen(key);
  };
  keys.forEach((key, index) => {
    panels[key].id = `panel-${(made += 1)}`;
    buttons[key].setAttribute("aria-controls", panels[key].id);
    buttons[key].addEventListener("click", () => choose(key));
    buttons[key].addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const next = keys[(index + step + keys.length) % keys.length];
      buttons[next].focus();
      choose(next);
    });
  });
}
