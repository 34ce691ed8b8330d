// Values under the pointer. Without scripts the page is complete but for these.
const tip = document.getElementById("tip");
const time = s => { s = Math.round(s); const h = Math.floor(s / 3600), m = Math.floor(s % 3600 / 60), p = n => String(n).padStart(2, "0");
  return h ? `${h}:${p(m)}:${p(s % 60)}` : `${m}:${p(s % 60)}` };
const count = x => { for (const [n, u] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) if (Math.abs(x) >= n) return +(x / n).toPrecision(3) + " " + u;
  return String(+x.toPrecision(4)) };
const size = x => { for (const u of ["B", "KiB", "MiB", "GiB"]) { if (Math.abs(x) < 1024 || u == "GiB") return x.toFixed(u == "B" ? 0 : 1) + " " + u; x /= 1024 } };
const written = { time, count, bytes: size, plain: x => String(+x.toPrecision(4)) };
for (const svg of document.querySelectorAll("svg[data-lines]")) {
  const d = JSON.parse(svg.dataset.lines), cursor = svg.querySelector(".cursor");
  svg.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect(), view = svg.viewBox.baseVal, scale = view.width / box.width;
    const at = Math.min(d.right, Math.max(d.left, (event.clientX - box.left) * scale));
    const x = d.x[0] + (at - d.left) / (d.right - d.left) * (d.x[1] - d.x[0]);
    const rows = d.lines.map(line => { let best = 0; line.x.forEach((v, n) => { if (Math.abs(v - x) < Math.abs(line.x[best] - x)) best = n });
      return `${line.name}  ${written[d.value](line.y[best])}` });
    cursor.setAttribute("d", `M${at} 10V${view.height - 30}`);
    tip.textContent = [d.unit == "time" ? time(x) : count(x) + " tokens", ...rows].join("\n");
    tip.style.display = "block";
    tip.style.left = Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8) + "px";
    tip.style.top = event.clientY + 14 + "px";
  });
  svg.addEventListener("pointerleave", () => { tip.style.display = "none"; cursor.setAttribute("d", "") });
}
