// While an import or a push is under way: tell screen readers how far it is, and everybody when the site is gone.
(() => {
  "use strict";
  const said = document.getElementById("said");
  let last = document.getElementById("job").dataset.say;

  document.body.addEventListener("htmx:afterSwap", () => {
    const now = document.getElementById("job").dataset.say;
    if (now !== last) said.textContent = last = now;
  });

  const showOffline = (is) => {
    const note = document.querySelector(".offline");
    if (note) note.hidden = !is;
  };
  document.body.addEventListener("htmx:sendError", () => showOffline(true));
  document.body.addEventListener("htmx:responseError", () => showOffline(true));
})();
