// Tells pictures and notebooks which theme the reader chose, in the words of Jupyter, which they follow anyway.
addEventListener("DOMContentLoaded", () => {
  const tell = () => {
    const theme = document.body.dataset.theme;
    if (theme === "light" || theme === "dark") document.body.dataset.jpThemeLight = String(theme === "light");
    else delete document.body.dataset.jpThemeLight;
  };
  tell();
  new MutationObserver(tell).observe(document.body, { attributeFilter: ["data-theme"] });
});
