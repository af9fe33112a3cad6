// The drawing pad's surface. The model's `strokes` is a list of strokes, each a list of points [x, y] from 0 to 1.

function render({ model, el }) {
  const side = model.get("side");
  const pen = model.get("pen");
  const canvas = document.createElement("canvas");
  const sharpness = window.devicePixelRatio || 1;
  canvas.width = canvas.height = Math.round(side * sharpness);
  canvas.className = "mnist-pad";
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "A square to draw a digit on");
  Object.assign(canvas.style, {
    width: `${side}px`,
    height: `${side}px`,
    background: "black",
    borderRadius: "6px",
    cursor: "crosshair",
    touchAction: "none", // else a finger would scroll the page
  });
  el.appendChild(canvas);
  const paper = canvas.getContext("2d");

  let strokes = model.get("strokes").map((stroke) => [...stroke]);
  let pointer = null; // the mouse, pen or finger that draws now

  function line(points) {
    const scale = canvas.width;
    paper.beginPath();
    points.forEach(([x, y]) => paper.lineTo(x * scale, y * scale));
    if (points.length === 1) paper.lineTo(points[0][0] * scale, points[0][1] * scale); // a dot
    paper.stroke();
  }

  function redraw() {
    paper.clearRect(0, 0, canvas.width, canvas.height);
    paper.strokeStyle = "white";
    paper.lineCap = paper.lineJoin = "round";
    paper.lineWidth = pen * canvas.width;
    if (!strokes.length) {
      paper.fillStyle = "#777";
      paper.font = `${Math.round(0.06 * canvas.width)}px sans-serif`;
      paper.textAlign = "center";
      paper.fillText("draw a digit here", canvas.width / 2, canvas.height / 2);
    }
    strokes.forEach(line);
  }

  function place(event) {
    const box = canvas.getBoundingClientRect();
    const share = (at, from, length) => Math.min(Math.max((at - from) / length, 0), 1);
    const point = [share(event.clientX, box.left, box.width), share(event.clientY, box.top, box.height)];
    return point.map((number) => Math.round(number * 1000) / 1000);
  }

  function send() {
    model.set("strokes", strokes.map((stroke) => [...stroke])); // a new list, or no change would be seen
    model.save_changes(); // waits by itself while the last message is still being answered
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (pointer !== null || event.button !== 0) return;
    event.preventDefault();
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId); // so that a stroke may leave the square and come back
    pointer = event.pointerId;
    strokes.push([place(event)]);
    redraw();
    send();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.pointerId !== pointer) return;
    const seen = event.getCoalescedEvents ? event.getCoalescedEvents() : [];
    const stroke = strokes[strokes.length - 1];
    const known = stroke.length;
    (seen.length ? seen : [event]).forEach((one) => stroke.push(place(one)));
    line(stroke.slice(known - 1));
    send();
  });
  function lift(event) {
    if (event.pointerId !== pointer) return;
    pointer = null;
    send();
  }
  canvas.addEventListener("pointerup", lift);
  canvas.addEventListener("pointercancel", lift);

  function follow() {
    if (pointer !== null) return; // while a stroke is being drawn, the hand knows best
    strokes = model.get("strokes").map((stroke) => [...stroke]);
    redraw();
  }
  model.on("change:strokes", follow);
  redraw();
  return () => model.off("change:strokes", follow);
}

export default { render };
