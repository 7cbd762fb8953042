import t from 'tap'
import { readable } from '../../../src/cli/log.js'
import {
  formatHostPort,
  parseCount,
  parseDurationMs,
  parseGraceMs,
  parseHostPort,
  parsePhysicalBlock,
} from '../../../src/cli/values.js'

void t.test('addresses', (t) => {
  t.same(parseHostPort('127.0.0.1:9500'), { host: '127.0.0.1', port: 9500 })
  t.same(parseHostPort('localhost:0'), { host: 'localhost', port: 0 })
  t.same(parseHostPort('[::1]:9500'), { host: '::1', port: 9500 })
  t.equal(formatHostPort({ host: '::1', port: 9500 }), '[::1]:9500')
  for (const bad of ['', '9500', ':9500', 'host', 'host:', 'host:port', 'host:65536', '::1:9500', 'a b:1']) {
    t.throws(() => parseHostPort(bad), { code: 'commander.invalidArgument' }, bad)
  }
  t.end()
})

void t.test('times', (t) => {
  t.equal(parseDurationMs('500ms'), 500)
  t.equal(parseDurationMs('1.5s'), 1500)
  t.equal(parseDurationMs('2m'), 120_000)
  t.equal(parseDurationMs('3'), 3000)
  t.equal(parseGraceMs('1s'), 1000)
  for (const bad of ['', '-1s', '1h', 's', '1 s']) t.throws(() => parseDurationMs(bad), bad)
  for (const bad of ['50ms', '2m']) t.throws(() => parseGraceMs(bad), bad)
  t.end()
})

void t.test('numbers', (t) => {
  t.equal(parseCount(16)('3'), 3)
  for (const bad of ['0', '17', '-1', '1.5', 'three', '']) t.throws(() => parseCount(16)(bad), bad)
  t.end()
})

void t.test('physical blocks', (t) => {
  t.equal(parsePhysicalBlock('512'), 512)
  t.equal(parsePhysicalBlock('4096'), 4096)
  const bad = { code: 'commander.invalidArgument', message: /512 or 4096/ }
  for (const text of ['', '1024', '0', '4KiB', '-512', '512.0']) t.throws(() => parsePhysicalBlock(text), bad, text)
  t.end()
})

void t.test('a log line for people', (t) => {
  const line = JSON.stringify({ level: 30, time: '2026-01-02T03:04:05.678Z', volume: 'demo', n: 1, msg: 'attached' })
  t.equal(readable(line), '03:04:05 info  attached volume=demo n=1')
  t.end()
})
