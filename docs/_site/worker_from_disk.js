// Browsers give a page that was opened from disk no worker, and the theme searches in one. So there it
// runs in a hidden frame, which answers with the same messages.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      this.loaded = new Promise((resolve) => frame.addEventListener("load", resolve, {once: true}));
      const begin = "postMessage = (data) => parent.postMessage(data, '*'); importScripts = () => {};";
      frame.srcdoc = `<script>${begin}</script><script src="${new URL(url, location.href)}"></script>`;
      document.body.append(frame);
      this.frame = frame;
      window.addEventListener("message", (event) => {
        if (event.source === frame.contentWindow) {
          this.dispatchEvent(new MessageEvent("message", {data: event.data}));
        }
      });
    }

    async postMessage(data) {
      await this.loaded;
      this.frame.contentWindow.dispatchEvent(new MessageEvent("message", {data}));
    }
  };
}
