// Numbers as pages say them: the same words as the server's.

export function duration(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 59.95) return `${Number(seconds.toFixed(1))} s`;
  const whole = Math.round(seconds);
  const [days, hours, minutes, rest] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60, whole % 60];
  const two = (a, A, b, B) => (b ? `${a} ${A} ${b} ${B}` : `${a} ${A}`);
  if (days) return two(days, "d", hours, "h");
  if (hours) return two(hours, "h", minutes, "min");
  return two(minutes, "min", rest, "s");
}

export function count(value) {
  for (const [limit, unit] of [[1e12, "T"], [1e9, "G"], [1e6, "M"]]) {
    if (value >= limit) return `${(value / limit).toPrecision(3)} ${unit}`;
  }
  return value.toLocaleString("en-US").replaceAll(",", "\u202f");
}
