// A list of any length of which only what is seen is in the document. Rows have one height; they keep their elements, and so the
// focus, as long as they are seen; elements of rows that went out of sight become those of rows that came in.

export class WindowList {
  /** make() gives an element, update(element, item, index) makes it the item's. scroller: an element, or null for the page. */
  constructor({ body, height, key, make, update, scroller = null, over = 6 }) {
    Object.assign(this, { body, height, key, make, update, scroller, over, items: [], shown: new Map(), due: false });
    this.onScroll = () => this.soon();
    (scroller ?? window).addEventListener("scroll", this.onScroll, { passive: true });
    window.addEventListener("resize", this.onScroll, { passive: true });
  }

  set(items) {
    this.items = items;
    this.render();
  }

  soon() {
    if (this.due) return;
    this.due = true;
    requestAnimationFrame(() => { this.due = false; this.render(); });
  }

  render() {
    const height = typeof this.height === "function" ? this.height() : this.height;
    this.body.style.height = `${this.items.length * height}px`;
    const [top, visible] = this.scroller
      ? [this.scroller.scrollTop, this.scroller.clientHeight]
      : [-this.body.getBoundingClientRect().top, window.innerHeight];
    const first = Math.max(0, Math.floor(top / height) - this.over);
    const end = Math.min(this.items.length, Math.ceil((top + visible) / height) + this.over);
    const wanted = new Map();
    for (let index = first; index < end; index++) wanted.set(this.key(this.items[index], index), index);
    const spare = [];
    for (const [key, element] of this.shown) {
      if (wanted.has(key)) continue;
      this.shown.delete(key);
      if (element.contains(document.activeElement)) element.remove(); else spare.push(element);
    }
    spare.reverse();
    let before = null;
    for (const [key, index] of wanted) {
      let element = this.shown.get(key);
      if (!element) this.shown.set(key, element = spare.pop() ?? this.make());
      const place = `translateY(${index * height}px)`;
      if (element.style.transform !== place) element.style.transform = place;
      this.update(element, this.items[index], index);
      // In reading order too; an element that stands right is not moved, because that would lose the focus.
      const next = before ? before.nextSibling : this.body.firstChild;
      if (next !== element) this.body.insertBefore(element, next);
      before = element;
    }
    for (const element of spare) element.remove();
  }

  end() {
    (this.scroller ?? window).removeEventListener("scroll", this.onScroll);
    window.removeEventListener("resize", this.onScroll);
  }
}
