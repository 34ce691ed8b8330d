// Before anything is drawn: the colours that were chosen, so that a dark page does not flash.
try {
  document.documentElement.dataset.theme = JSON.parse(localStorage.getItem("reformer.settings") ?? "{}").theme ?? "auto";
} catch {
  // storage is closed to this page: colours as the computer has them
}
