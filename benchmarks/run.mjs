// npm run bench: Ankole and its peers in turn. README.md says how, and how it can mislead.
import { appendFileSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { builtFio, hasEngines } from './build-fio.mjs'
import { prepare, residency, settle } from './cache.mjs'
import { fill, measure } from './fio.mjs'
import { measureIdle } from './idle.mjs'
import { commit, freeBytes, machine, versions } from './machine.mjs'
import { readOptions } from './options.mjs'
import { machineBusyUs, pssMiB, totalCpuUs } from './processes.mjs'
import { profiled } from './profile.mjs'
import { interrupt, missing } from './programs.mjs'
import { idleTable, summarize, tables } from './report.mjs'
import { systems as known } from './systems/index.mjs'
import { compareToTargets, costOfChecksums, costTable, targetsTable } from './targets.mjs'

const results = join(dirname(fileURLToPath(import.meta.url)), 'results')

async function main() {
  const asked = readOptions(process.argv.slice(2))
  if (asked === null) return
  if (asked.cells.length > 0) check(asked)
  const options = { ...asked, fio: await fioOf(asked) }
  const record = {
    date: new Date().toISOString(),
    commit: commit(),
    machine: machine(resolve(options.directory)),
    versions: versions(options.fio),
    settings: settingsOf(options),
  }
  const directory = mkdtempSync(join(options.directory, 'ankole-bench-'))
  try {
    if (options.cells.length > 0) Object.assign(record, await compare({ ...options, directory }))
    if (options.idle) {
      record.idle = await measureIdle({ ...options, directory })
      console.log(`\n${idleTable(record.idle)}`)
    }
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
  keep(record, options.quick || options.profile)
}

function check({ systems, sizeBytes, directory, profile }) {
  const needs = ['fincore', 'dd', 'sync', ...new Set(systems.flatMap((name) => known[name].needs))]
  if (profile) needs.push('perf')
  const lacking = missing(needs)
  if (lacking.length > 0) throw new Error(`missing: ${lacking.join(', ')}. Without a peer: see --systems`)
  const needed = systems.reduce((sum, name) => sum + known[name].copies, 0) * sizeBytes * 1.1
  if (freeBytes(directory) < needed) {
    throw new Error(`${directory} has too little space: ${Math.ceil(needed / 2 ** 20)} MiB are needed; see --directory`)
  }
}

/** One for all systems of the run. Debian's has no libiscsi. */
async function fioOf({ fio, systems, cells }) {
  if (fio !== undefined) {
    if (!hasEngines(fio)) throw new Error(`--fio: ${fio} is no fio with the engines libiscsi, nbd and libaio`)
    return fio
  }
  if (cells.length > 0 && systems.some((name) => known[name].iscsi)) return builtFio()
  const lacking = cells.length > 0 ? missing(['fio']) : []
  if (lacking.length > 0) throw new Error(`missing: ${lacking.join(', ')}`)
  return 'fio'
}

async function compare(options) {
  const systems = []
  try {
    for (const name of options.systems) systems.push(await known[name].start(options))
    for (const { name, about } of systems) console.log(`${name.padEnd(12)} ${about}`)
    for (const system of systems) await fill(system.target(), options)
    const samples = []
    for (let round = 1; round <= options.rounds; round++) samples.push(...(await runRound(round, systems, options)))
    const summaries = summarize(samples)
    console.log(`\n${tables(summaries)}`)
    const targets = compareToTargets(samples)
    if (targets.length > 0) console.log(`\n${targetsTable(targets)}`)
    const checksums = costOfChecksums(samples)
    if (checksums.length > 0) console.log(`\n${costTable(checksums)}`)
    const about = Object.fromEntries(systems.map(({ name, about }) => [name, about]))
    return {
      ...{ systems: about, cells: summaries },
      ...(targets.length > 0 ? { targets } : {}),
      ...(checksums.length > 0 ? { checksums } : {}),
    }
  } finally {
    for (const system of systems.reverse()) await system.stop()
  }
}

/** Every cell on one system after the other, so that what changes on the machine changes for all. */
async function runRound(round, systems, options) {
  const samples = []
  const states = new Map()
  for (const { cell, cache } of options.cells) {
    for (const system of systems) {
      const trouble = states.get(system) === cache ? null : await prepare(system, cache, options)
      const sample = await runCell(system, cell, cache, { ...options, seed: round })
      states.set(system, cell.direction === 'read' && trouble === null ? cache : null)
      samples.push({ ...sample, round, cell: cell.name, cache, system: system.name, trouble })
      console.log(line(round, samples.at(-1)))
    }
  }
  return samples
}

async function runCell(system, cell, cache, options) {
  const files = await system.files()
  const processes = system.processes()
  const before = await residency(files)
  const cpuBefore = totalCpuUs(processes)
  const machineBefore = machineBusyUs()
  const work = () => measure(system.target(), cell, options)
  const name = `${cell.name}@${cache}-${system.name}`
  const figures = options.profile ? await profiled(name, processes, work) : await work()
  const cpuUs = totalCpuUs(processes) - cpuBefore
  const machineUs = machineBusyUs() - machineBefore
  const pssMib = Object.fromEntries(processes.map(({ pid, kind }) => [kind, pssMiB(pid)]))
  const after = await residency(files)
  await system.check?.()
  await settle(files)
  return {
    ...figures,
    cpuUsPerIo: cpuUs / figures.ios,
    clientCpuUsPerIo: figures.clientCpuUs / figures.ios,
    machineCpuUsPerIo: machineUs / figures.ios,
    ...{ residentBefore: before.each, residentAfter: after.each, pssMib },
  }
}

function line(round, { cell, cache, system, iops, p50Us, p99Us, cpuUsPerIo, residentBefore, residentAfter, trouble }) {
  const cached = `cached ${residentBefore.join('/')} -> ${residentAfter.join('/')} %`
  const figures = `${Math.round(iops)} IOPS, p50 ${p50Us.toFixed(0)} p99 ${p99Us.toFixed(0)} us, ${cpuUsPerIo.toFixed(1)} us/IO`
  const note = trouble === null ? '' : `  CACHE NOT AS STATED: ${trouble}`
  return `round ${round}  ${`${cell}@${cache}`.padEnd(22)} ${system.padEnd(12)} ${figures}; ${cached}${note}`
}

function settingsOf({ quick, profile, rounds, seconds, sizeBytes, ioBackend, systems, cells }) {
  return {
    ...{ quick, profile, rounds, seconds, size_bytes: sizeBytes, io_backend: ioBackend, systems },
    cells: cells.map(({ cell, cache }) => `${cell.name}@${cache}`),
  }
}

/** One line a run. Those that are not for quoting apart. */
function keep(record, quick) {
  mkdirSync(results, { recursive: true })
  const file = join(results, quick ? 'quick.jsonl' : 'runs.jsonl')
  appendFileSync(file, `${JSON.stringify(record)}\n`)
  console.log(`\nkept in benchmarks/results/${quick ? 'quick' : 'runs'}.jsonl`)
}

for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, interrupt)
try {
  await main()
} catch (error) {
  console.error(`bench: ${error.message}`)
  process.exitCode = 1
}
