// While a composition is under way: tell screen readers when its stage changes, and everybody when the site is gone.
(() => {
  "use strict";
  const said = document.getElementById("said");
  let last = document.getElementById("composition").dataset.say;

  document.body.addEventListener("htmx:afterSwap", () => {
    const now = document.getElementById("composition").dataset.say;
    if (now !== last) said.textContent = last = now;
  });

  const showOffline = (is) => {
    const note = document.querySelector(".offline");
    if (note) note.hidden = !is;
  };
  document.body.addEventListener("htmx:sendError", () => showOffline(true));
  document.body.addEventListener("htmx:responseError", () => showOffline(true));
})();
