// Metric families whose values are read at the scrape, not counted here: the data path counts in its own memory.
import { Registry, type Metric } from 'prom-client'

export type Labels = Record<string, string>

interface Sample {
  metricName: string
  labels: Labels
  value: number
}

type FamilyType = 'counter' | 'gauge' | 'histogram'

/** One family of one scrape. Registered with prom-client, which writes it in Prometheus' text format. */
class Family {
  readonly aggregator = 'sum'
  readonly values: Sample[] = []

  constructor(
    readonly name: string,
    readonly help: string,
    readonly type: FamilyType,
  ) {}

  get(): Promise<Family> {
    return Promise.resolve(this)
  }
}

/** The sum of a histogram and its plain counts by bucket; the last bucket has no bound. */
export interface Distribution {
  sumSeconds: number
  buckets: readonly number[]
}

/** What one scrape shows. Families appear in the order of their first sample. */
export class Exposition {
  readonly #families = new Map<string, Family>()

  counter(name: string, help: string, labels: Labels, value: number): void {
    this.#family(name, help, 'counter').values.push({ metricName: name, labels, value })
  }

  gauge(name: string, help: string, labels: Labels, value: number): void {
    this.#family(name, help, 'gauge').values.push({ metricName: name, labels, value })
  }

  /** One sample for each known state, 1 for the one that holds. */
  state(name: string, help: string, label: string, known: readonly string[], labels: Labels, holds: string): void {
    for (const one of known) this.gauge(name, help, { ...labels, [label]: one }, one === holds ? 1 : 0)
  }

  histogram(name: string, help: string, labels: Labels, bounds: readonly number[], seen: Distribution): void {
    const { values } = this.#family(name, help, 'histogram')
    let count = 0
    for (const [index, bound] of bounds.entries()) {
      count += seen.buckets[index] ?? 0
      values.push({ metricName: `${name}_bucket`, labels: { ...labels, le: String(bound) }, value: count })
    }
    count += seen.buckets[bounds.length] ?? 0
    values.push({ metricName: `${name}_bucket`, labels: { ...labels, le: '+Inf' }, value: count })
    values.push({ metricName: `${name}_sum`, labels, value: seen.sumSeconds })
    values.push({ metricName: `${name}_count`, labels, value: count })
  }

  async text(): Promise<string> {
    const registry = new Registry()
    // prom-client asks no more of a metric than its name and get(); its types name its own four classes only.
    for (const family of this.#families.values()) registry.registerMetric(family as unknown as Metric)
    return registry.metrics()
  }

  #family(name: string, help: string, type: FamilyType): Family {
    let family = this.#families.get(name)
    if (!family) {
      family = new Family(name, help, type)
      this.#families.set(name, family)
    }
    return family
  }
}

export const contentType: string = Registry.PROMETHEUS_CONTENT_TYPE
