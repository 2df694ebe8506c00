// Runs before the first paint, so that a chosen appearance never flashes. Without a choice the system decides.
(() => {
  const KEY = "mutransfer-theme";
  const root = document.documentElement;
  const stored = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // storage is barred: the choice lasts for this page only
    }
  };
  const system = matchMedia("(prefers-color-scheme: dark)");
  const set = (choice) => {
    if (choice === "light" || choice === "dark") root.dataset.theme = choice;
    else delete root.dataset.theme;
  };
  const changed = () => document.dispatchEvent(new CustomEvent("themechange"));

  window.mutransferTheme = {
    choice: () => root.dataset.theme ?? "auto",
    current: () => root.dataset.theme ?? (system.matches ? "dark" : "light"),
    choose(choice) {
      set(choice);
      try {
        if (choice === "auto") localStorage.removeItem(KEY);
        else localStorage.setItem(KEY, choice);
      } catch {
        // as above
      }
      changed();
    },
  };
  set(stored());
  system.addEventListener("change", changed);
})();
