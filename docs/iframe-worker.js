// The search runs in a worker, which browsers refuse to pages that are opened from disk. There its
// script runs in a frame instead, which is told and tells messages as a worker would.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.frame.title = "search";
      document.body.appendChild(this.frame);
      const inner = this.frame.contentWindow;
      this.ready = new Promise((resolve) => {
        inner.document.open();
        inner.document.write("<!doctype html><title>search</title>");
        inner.document.close();
        // The worker's own words: tell the page, and load further scripts one after the other.
        inner.postMessage = (data) => {
          const event = new MessageEvent("message", { data });
          this.dispatchEvent(event);
          if (this.onmessage) this.onmessage(event);
        };
        inner.importScripts = (...paths) =>
          paths.reduce((before, path) => before.then(() => this.load(path)), Promise.resolve());
        this.load(url).then(resolve);
      });
    }
    load(path) {
      const { document: inside } = this.frame.contentWindow;
      return new Promise((resolve, reject) => {
        const script = inside.createElement("script");
        script.src = new URL(path, location.href).href;
        script.onload = resolve;
        script.onerror = reject;
        inside.body.appendChild(script);
      });
    }
    postMessage(data) {
      this.ready.then(() => {
        const inner = this.frame.contentWindow;
        inner.dispatchEvent(new inner.MessageEvent("message", { data }));
      });
    }
    terminate() {
      this.frame.remove();
    }
  };
}
