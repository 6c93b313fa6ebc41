// While a job is under way (composition, import, push): tell screen readers how far it is, and everybody when the site is gone.
(() => {
  "use strict";
  const said = document.getElementById("said");
  const state = () => document.querySelector("[data-say]").dataset.say;
  let last = state();

  document.body.addEventListener("htmx:afterSwap", () => {
    const now = state();
    if (now !== last) said.textContent = last = now;
  });

  const showOffline = (is) => {
    const note = document.querySelector(".offline");
    if (note) note.hidden = !is;
  };
  document.body.addEventListener("htmx:sendError", () => showOffline(true));
  document.body.addEventListener("htmx:responseError", () => showOffline(true));
})();
