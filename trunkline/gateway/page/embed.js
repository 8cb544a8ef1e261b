// A call button for any page: <script src="https://GATEWAY/embed.js" data-token="JOIN TOKEN" async></script>
// The page's origin must be in the gateway's devices.origins. Without data-token the gateway decides.
(() => {
  const script = document.currentScript;
  const gateway = new URL(".", script.src);
  const frame = document.createElement("iframe");
  const token = script.dataset.token;
  frame.src = gateway + (token ? `#token=${encodeURIComponent(token)}` : "");
  frame.title = script.dataset.title || "Call";
  frame.allow = "microphone; autoplay";
  frame.style.cssText = `border:0;width:${script.dataset.width || "360px"};height:${script.dataset.height || "560px"}`;
  script.after(frame);
})();
