// Says when high water is, and shows the picture once the rest is on the screen.
addEventListener('DOMContentLoaded', () => {
  const days = atob(TIDES[1986]);
  const minutes = (days.charCodeAt(304) * 256 + days.charCodeAt(305)) % 720;
  const time = [Math.floor(minutes / 60), minutes % 60].map(n => String(n).padStart(2, '0'));
  document.getElementById('tide').textContent =
    `A hundred years after the light was lit, high water was at ${time.join(':')}.`;
});
// The second frame: the first one, without the picture, has been shown by then.
addEventListener('DOMContentLoaded', () => {
  const show = () => {
    for (const picture of document.images) picture.src = picture.dataset.src;
  };
  requestAnimationFrame(() => requestAnimationFrame(show));
});
