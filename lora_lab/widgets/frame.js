// Keeps the plots of one panel as wide as their cards. Plotly takes 700 px where it draws before it is in the page, and looks again
// only when the window is resized; it then takes its height from the element, which therefore is told the height that Python chose.
function render({ el }) {
  const tried = new Map();
  let pending = 0;
  const later = () => {
    pending ||= setTimeout(fit, 30);
  };
  const widths = new ResizeObserver(later);
  const fit = () => {
    pending = 0;
    let off = false;
    for (const plot of el.closest(".lab-panel")?.querySelectorAll(".js-plotly-plot") ?? []) {
      if (!plot._fullLayout) continue;
      if (!tried.has(plot)) {
        tried.set(plot, 0);
        plot.on("plotly_afterplot", later);
        widths.observe(plot);
      }
      if (plot.layout.height) plot.style.height = `${plot.layout.height}px`;
      const width = plot.clientWidth;
      if (width && Math.abs(width - plot._fullLayout.width) > 1 && tried.get(plot) !== width) {
        tried.set(plot, width);
        off = true;
      }
    }
    if (off) window.dispatchEvent(new Event("resize"));
  };
  document.addEventListener("plotlywidget-after-render", later);
  later();
  return () => {
    document.removeEventListener("plotlywidget-after-render", later);
    widths.disconnect();
    clearTimeout(pending);
  };
}

export default { render };
