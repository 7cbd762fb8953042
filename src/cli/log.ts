import { pino, type Logger } from 'pino'
import type { LogLevel } from './log-level.js'

/** To stderr: JSON lines, or short ones where a person reads along. Secrets are cut out whoever logs them. */
export function createLog(level: LogLevel): Logger {
  const options = {
    level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    redact: { paths: secretPaths(), censor: '[secret]' },
  }
  if (!process.stderr.isTTY) return pino(options, pino.destination({ fd: 2, sync: true }))
  return pino(options, {
    write: (line: string) => {
      process.stderr.write(`${readable(line)}\n`)
    },
  })
}

/** As deep as documents with secrets in them are: a plan holds engines, one of them iSCSI, that one CHAP. */
function secretPaths(): string[] {
  const depths = ['', '*.', '*.*.', '*.*.*.', '*.*.*.*.']
  return depths.flatMap((depth) => ['secret', 'mutualSecret'].map((name) => `${depth}${name}`))
}

const names: Record<number, string> = { 20: 'debug', 30: 'info ', 40: 'warn ', 50: 'error' }

/** «07:41:12 info  volume attached  volume=demo node=a» */
export function readable(line: string): string {
  const { level, time, msg, ...fields } = JSON.parse(line) as { level: number; time: string; msg?: string }
  const shown = Object.entries(fields).map(
    ([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
  )
  return [time.slice(11, 19), names[level] ?? String(level), msg ?? '', ...shown].join(' ')
}
