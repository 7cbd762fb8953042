// The kernel's iSCSI initiator, with open-iscsi's tools as a user has them.

import { sleep } from '../conformance/ankole.js'
import type { Guest } from './guest.js'

const deviceWaitMs = 30_000

/** How open-iscsi names what went wrong at a login: the target did not let it in; it went away from the target. */
export const authorizationFailed = 24
export const loginFailed = 19

export interface Credentials {
  user: string
  secret: string
}

export interface Access {
  chap?: Credentials
  /** The target's own, which it answers the initiator's challenge with. */
  chapMutual?: Credentials
  digests?: boolean
}

/** As it was negotiated. */
export interface Session {
  /** Where the initiator looked for the target. */
  persistentPortal: string
  /** Where it was sent. */
  portal: string
  digests: boolean
}

export class Initiator {
  private constructor(readonly guest: Guest) {}

  static async start(guest: Guest): Promise<Initiator> {
    await guest.do('iscsid && iscsiadm -m session || [ $? -eq 21 ]') // 21: it answers, and there is no session
    return new Initiator(guest)
  }

  /** The names of the targets that a portal tells of, each with where it says that it is. */
  async discover(portal: string): Promise<Map<string, string>> {
    const found = await this.guest.do(`iscsiadm -m discovery -t sendtargets -p ${portal}`)
    const lines = [...found.matchAll(/^(\S+),\d+ (\S+)$/gm)]
    return new Map(lines.map(([, where, iqn]) => [iqn!, where!]))
  }

  target(portal: string, iqn: string): Target {
    return new Target(this.guest, portal, iqn)
  }
}

/** One that was discovered. */
export class Target {
  constructor(
    readonly guest: Guest,
    readonly portal: string,
    readonly iqn: string,
  ) {}

  /** How the next login is to be made. */
  async set({ chap, chapMutual, digests = false }: Access): Promise<void> {
    const settings = {
      'node.session.auth.authmethod': chap ? 'CHAP' : 'None',
      'node.session.auth.username': chap?.user,
      'node.session.auth.password': chap?.secret,
      'node.session.auth.username_in': chapMutual?.user,
      'node.session.auth.password_in': chapMutual?.secret,
      'node.conn[0].iscsi.HeaderDigest': digests ? 'CRC32C' : 'None',
      'node.conn[0].iscsi.DataDigest': digests ? 'CRC32C' : 'None',
    }
    const updates = Object.entries(settings).map(
      ([name, value = '']) => `${this.#node} -o update -n '${name}' -v '${value}'`,
    )
    await this.guest.do(updates.join(' && '))
  }

  /** With the code of iscsiadm. */
  async tryLogin(): Promise<number> {
    return (await this.guest.run(`${this.#node} --login`)).code
  }

  /** Resolves with the device, when it is there. */
  async login(): Promise<string> {
    await this.guest.do(`${this.#node} --login`)
    const deadline = performance.now() + deviceWaitMs
    for (;;) {
      // Of a logical unit, the kernel makes the block device last.
      const { code, output } = await this.guest.run(`${this.#session} && ls $session/device/target*/*/block`)
      if (code === 0) return `/dev/${output.trim()}`
      if (performance.now() > deadline) throw new Error(`${this.iqn}: no device in time: ${output}`)
      await sleep(100)
    }
  }

  async logout(): Promise<void> {
    await this.guest.do(`${this.#node} --logout`)
  }

  async session(): Promise<Session> {
    const directory = '$session/device/connection*/iscsi_connection/*'
    const names = ['persistent_address', 'persistent_port', 'address', 'port', 'header_digest', 'data_digest']
    const read = `${this.#session} && cd ${directory} && cat ${names.join(' ')}`
    const [persistentHost, persistentPort, host, port, ...digests] = (await this.guest.do(read)).trim().split('\n')
    return {
      persistentPortal: `${persistentHost!}:${persistentPort!}`,
      portal: `${host!}:${port!}`,
      digests: digests.every((digest) => digest === '1'),
    }
  }

  get #node(): string {
    return `iscsiadm -m node -T ${this.iqn} -p ${this.portal}`
  }

  /** Finds the directory of its session. */
  get #session(): string {
    return `session=$(dirname $(grep -lx ${this.iqn} /sys/class/iscsi_session/*/targetname))`
  }
}
