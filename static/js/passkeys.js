// Browsers make and use passkeys only where the site has a name: a button that could do nothing says so instead.
(() => {
  "use strict";
  const buttons = document.querySelectorAll("#passkey_login, #mfa_webauthn_add, #mfa_webauthn_authenticate, #mfa_webauthn_reauthenticate");
  const tell = (button, ...parts) => {
    const words = document.createElement("p");
    words.className = "hint";
    words.setAttribute("role", "status");
    words.append(...parts);
    if (button.nextElementSibling?.matches("p.hint[role=status]")) button.nextElementSibling.remove();
    button.after(words);
  };
  // Beside the code of an app: only whoever has a passkey is asked for one.
  const second = document.getElementById("mfa_webauthn_authenticate");
  const wanted = second && JSON.parse(document.getElementById("js_data").textContent).request_options.publicKey;
  if (wanted && !wanted.allowCredentials?.length) second.hidden = true;
  const isNumber = /^[\d.]+$|^\[/.test(location.hostname);
  for (const button of buttons) {
    if (button.hidden || (!isNumber && window.PublicKeyCredential)) continue;
    button.hidden = true;
    if (/^127\.|^\[::1\]$/.test(location.hostname)) {
      const link = document.createElement("a");
      link.className = "link";
      link.href = `${location.protocol}//localhost${location.port ? `:${location.port}` : ""}${location.pathname}${location.search}`;
      link.textContent = "localhost";
      tell(button, "Browsers take passkeys at a name only, not at a number: open this site as ", link, ".");
    } else {
      tell(button, "Browsers take passkeys only at a name, and only by https.");
    }
  }
  document.addEventListener("allauth.error", (event) => {
    const button = [...buttons].find((one) => !one.hidden);
    if (!button) return;
    const { name } = event.detail.exception;
    tell(button, name === "NotAllowedError" ? "No passkey came: it was stopped, or took too long. Try again." : `Your browser took no passkey (${name}).`);
  });
})();
