// A classic script of its own, so that the page is never painted in the wrong theme.
try {
  document.documentElement.dataset.theme = localStorage.getItem("hubbub.theme") ?? "auto";
} catch {
  document.documentElement.dataset.theme = "auto";
}
