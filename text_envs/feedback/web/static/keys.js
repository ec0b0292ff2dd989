// A key clicks the button that names it; a form is sent once. Without this script the page works by its buttons.
"use strict";

const typing = element => element.closest("input, textarea, select, [contenteditable]") !== null;

document.addEventListener("keydown", event => {
  if (event.repeat || event.ctrlKey || event.altKey || event.metaKey || typing(event.target)) return;
  const button = document.querySelector(`button[data-key="${CSS.escape(event.key.toLowerCase())}"]`);
  if (button === null) return;
  event.preventDefault();
  button.click();
});

let sent = false;

document.addEventListener("submit", event => {
  if (sent) event.preventDefault();
  sent = true;
});

window.addEventListener("pageshow", () => { sent = false; });
