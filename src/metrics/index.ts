export { createMetrics, type CountersSource, type MetricsOptions, type MetricsSource } from './collect.js'
export { processUsage, type ProcessUsage } from './processes.js'
