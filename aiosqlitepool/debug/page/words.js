// Numbers and times for people. Times are seconds.

export function duration(seconds) {
  if (seconds === 0) return "0";
  if (seconds < 0.0009995) return `${(1e6 * seconds).toFixed(0)} µs`;
  if (seconds < 0.9995) return `${(1e3 * seconds).toFixed(seconds < 0.09995 ? 1 : 0)} ms`;
  if (seconds < 99.5) return `${seconds.toFixed(seconds < 9.995 ? 2 : 1)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

/** A time in whole seconds. */
export function roughly(seconds) {
  const whole = Math.round(seconds);
  return whole < 100 ? `${whole} s` : duration(whole);
}

/** How much of a bar a time fills: a millisecond is little, half a minute is all; each ten times more, as much again. */
export const share = (seconds) => Math.min(1, Math.max(0, Math.log10(1 + 1000 * seconds) / Math.log10(1 + 30000)));

export const number = (value) => value.toLocaleString("en", { maximumFractionDigits: value < 10 && value % 1 ? 1 : 0 });
export const plural = (count, word) => `${number(count)} ${word}${count === 1 ? "" : "s"}`;
export function cut(text, length) {
  const letters = [...text]; // not in the middle of one
  return letters.length <= length ? text : `${letters.slice(0, length).join("")}…`;
}
export const clock = (at) => {
  const time = new Date(1000 * at);
  const two = (value) => String(value).padStart(2, "0");
  const fraction = String(time.getMilliseconds()).padStart(3, "0");
  return `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}.${fraction}`;
};
