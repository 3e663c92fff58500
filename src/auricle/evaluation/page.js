"use strict";
// A spot of a map plays its sound when it is pressed, and stops it when it is pressed again; one sound at a time.
addEventListener("click", (event) => {
  const spot = event.target.closest("[data-sound]");
  if (!spot) return;
  const sound = document.getElementById(spot.dataset.sound);
  if (!sound.paused) return sound.pause();
  sound.currentTime = 0;
  // A sound that another one stops before it has begun is no fault.
  sound.play().catch(() => {});
});
for (const kind of ["play", "pause"]) {
  // These events do not bubble, but pass by on their way down.
  addEventListener(kind, (event) => {
    const sound = event.target;
    document.querySelector(`[data-sound="${sound.id}"]`)?.classList.toggle("playing", kind === "play");
    if (kind === "play") document.querySelectorAll("audio").forEach((other) => other === sound || other.pause());
  }, true);
}
