// A page that was opened from a disk may start no Worker, and the site's search is one. There it runs in a hidden frame
// of the page instead: messages go both ways as events, those that come before its script is read wait.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(source) {
      super();
      this.waiting = [];
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.documentElement.append(frame);
      this.inner = frame.contentWindow;
      this.inner.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      this.inner.importScripts = (...names) => Promise.all(names.map((name) => this.read(name)));
      this.read(source).then(() => {
        const waiting = this.waiting;
        this.waiting = null;
        waiting.forEach((data) => this.postMessage(data));
      });
    }
    read(source) {
      return new Promise((resolve, reject) => {
        const script = this.inner.document.createElement("script");
        script.src = String(source);
        script.onload = resolve;
        script.onerror = reject;
        this.inner.document.head.append(script);
      });
    }
    postMessage(data) {
      if (this.waiting) this.waiting.push(data);
      else this.inner.dispatchEvent(new MessageEvent("message", { data }));
    }
    set onmessage(listener) {
      this.addEventListener("message", listener);
    }
    terminate() {
      this.inner.frameElement?.remove();
    }
  };
}
