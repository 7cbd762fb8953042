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
export async function measure(target, cell, { sizeBytes, seconds, seed, directory }) {
  const report = await fio(target, directory, [
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

/** All of it once, from front to back, in pieces of 1 MiB; flushed. */
export async function fill(target, { sizeBytes, directory }) {
  await fio(target, directory, ['--rw=write', '--bs=1m', '--iodepth=4', `--size=${sizeBytes}`, '--end_fsync=1'])
}

/** Each file once, in pieces of 4 KiB, without read-ahead. */
export async function readSmall(file, { sizeBytes, directory }) {
  const jobs = 4
  await fio(['--ioengine=psync', `--filename=${file}`], directory, [
    ...['--rw=read', '--bs=4k', '--fadvise_hint=random', `--numjobs=${jobs}`, '--group_reporting'],
    ...[`--size=${sizeBytes / jobs}`, `--offset_increment=${sizeBytes / jobs}`],
  ])
}

async function fio(target, directory, args) {
  const output = await run('fio', [...always, ...target, ...args], { cwd: directory })
  return JSON.parse(output.slice(output.indexOf('{')))
}
