// The load: the same fio, with the same seed, on every system.
import { run } from './programs.mjs'

/**
 * Latency is from submission to completion (`lat`), as buffered I/O of libaio is done while it is submitted. invalidate=0: fio
 * drops a file's cache otherwise, and only that of the raw file, as it sees no other.
 */
const always = [
  ...['--name=cell', '--thread', '--invalidate=0', '--norandommap', '--randrepeat=1', '--verify_state_save=0'],
  ...['--lat_percentiles=1', '--clat_percentiles=0', '--percentile_list=50:99:99.9', '--output-format=json'],
]

/** For as long as asked. */
export async function measure(target, cell, options) {
  const { sizeBytes, seconds, seed } = options
  const report = await fio(target, options, [
    ...[`--rw=${cell.pattern}`, `--bs=${cell.blockSize}`, `--iodepth=${cell.queueDepth}`, `--size=${sizeBytes}`],
    ...['--time_based', `--runtime=${seconds}`, `--randseed=${seed}`],
  ])
  const [job] = report.jobs
  if (job.error !== 0) throw new Error(`fio saw error ${job.error}`)
  const { iops, bw_bytes: bytesPerSecond, total_ios: ios, runtime, lat_ns: latency } = job[cell.direction]
  return {
    ...{ iops, ios, runtimeMs: runtime, mibPerSecond: bytesPerSecond / 2 ** 20 },
    p50Us: latency.percentile['50.000000'] / 1000,
    p99Us: latency.percentile['99.000000'] / 1000,
    p999Us: latency.percentile['99.900000'] / 1000,
    clientCpuUs: ((job.usr_cpu + job.sys_cpu) / 100) * job.job_runtime * 1000,
  }
}

/**
 * All of it once, from front to back, in pieces of 1 MiB. Not flushed by fio: its libiscsi engine asks for a range that is longer
 * than the unit, which a target may refuse.
 */
export async function fill(target, options) {
  await fio(target, options, ['--rw=write', '--bs=1m', '--iodepth=4', `--size=${options.sizeBytes}`])
}

/** Each file once, in pieces of 4 KiB, without read-ahead. */
export async function readSmall(file, options) {
  const jobs = 4
  const partBytes = options.sizeBytes / jobs
  await fio(['--ioengine=psync', `--filename=${file}`], options, [
    ...['--rw=read', '--bs=4k', '--fadvise_hint=random', `--numjobs=${jobs}`, '--group_reporting'],
    ...[`--size=${partBytes}`, `--offset_increment=${partBytes}`],
  ])
}

async function fio(target, { fio: program, directory }, args) {
  const output = await run(program, [...always, ...target, ...args], { cwd: directory })
  return JSON.parse(output.slice(output.indexOf('{')))
}
