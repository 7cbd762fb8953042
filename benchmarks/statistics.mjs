export function median(values) {
  const sorted = [...values].sort((one, other) => one - other)
  const middle = Math.floor(sorted.length / 2)
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

/** Median absolute deviation, not scaled. */
export function mad(values) {
  const center = median(values)
  return median(values.map((value) => Math.abs(value - center)))
}

export function spread(values) {
  return { median: median(values), min: Math.min(...values), max: Math.max(...values) }
}
