// Any element with data-pick is a button: by click, Enter and Space. What was picked goes to Python, which answers with new HTML.
function render({ model, el }) {
  el.classList.add("lab-picked");
  const draw = () => {
    const focused = el.contains(document.activeElement) ? document.activeElement.dataset.pick : null;
    el.innerHTML = model.get("drawn");
    if (focused) el.querySelector(`[data-pick="${CSS.escape(focused)}"]`)?.focus();
  };
  const pick = (event) => {
    const picked = event.target.closest("[data-pick]");
    if (!picked) return;
    event.preventDefault();
    event.stopPropagation();
    model.send({ pick: picked.dataset.pick });
  };
  const press = (event) => {
    if (event.key === "Enter" || event.key === " ") pick(event);
  };
  el.addEventListener("click", pick);
  el.addEventListener("keydown", press);
  model.on("change:drawn", draw);
  draw();
  return () => model.off("change:drawn", draw);
}

export default { render };
