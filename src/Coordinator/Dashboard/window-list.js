// A list of any length of which only what is seen is in the document. Rows have one height; they keep their elements, and so the
// focus, as long as they are seen.

export class WindowList {
  /** make(item) gives an element, update(element, item, index) fills it. scroller: an element, or null for the page. */
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
    for (const [key, element] of this.shown) {
      if (!wanted.has(key)) { element.remove(); this.shown.delete(key); }
    }
    let before = null;
    for (const [key, index] of wanted) {
      let element = this.shown.get(key);
      if (!element) {
        element = this.make(this.items[index]);
        this.shown.set(key, element);
      }
      const place = `translateY(${index * height}px)`;
      if (element.style.transform !== place) element.style.transform = place;
      this.update(element, this.items[index], index);
      // In reading order too; an element that stands right is not moved, because that would lose the focus.
      const next = before ? before.nextSibling : this.body.firstChild;
      if (next !== element) this.body.insertBefore(element, next);
      before = element;
    }
  }

  end() {
    (this.scroller ?? window).removeEventListener("scroll", this.onScroll);
    window.removeEventListener("resize", this.onScroll);
  }
}
