// An Ankole whose portal the guest reaches, and volumes that are served there.

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import type { AttachmentView } from '../../src/api/index.js'
import { aDirectory, LocalAnkole } from '../conformance/ankole.js'
import { Volume } from '../conformance/volume.js'
import type { Access, Credentials } from './initiator.js'

export interface ServedVolume {
  volume: Volume
  iqn: string
}

export class AnkoleWithPortal extends LocalAnkole {
  /** Attached, with the secrets that it asks for. */
  async serve(name: string, size: string, { chap, chapMutual }: Access = {}): Promise<ServedVolume> {
    const credentials = [...this.#chap('chap', name, chap), ...this.#chap('chap-mutual', name, chapMutual)]
    await this.cli('volume', 'create', name, '--size', size, '--replicas', '3', ...credentials)
    const { iscsi } = await this.cli<AttachmentView>('volume', 'attach', name)
    if (iscsi.portal !== this.portal || iscsi.lun !== 0) throw new Error(`${name} is at ${JSON.stringify(iscsi)}`)
    return { volume: new Volume(this, name), iqn: iscsi.iqn }
  }

  #chap(option: string, volume: string, credentials: Credentials | undefined): string[] {
    if (!credentials) return []
    const file = join(this.directory, `${volume}.${option}`)
    writeFileSync(file, `${credentials.secret}\n`, { mode: 0o600 })
    return [`--${option}-user`, credentials.user, `--${option}-secret-file`, file]
  }
}

export async function anAnkoleWithPortal(t: Test): Promise<AnkoleWithPortal> {
  const ankole = new AnkoleWithPortal(aDirectory(t), {})
  t.teardown(async () => {
    if (!t.passing()) t.comment(ankole.log().split('\n').slice(-80).join('\n'))
    if (ankole.isRunning) await ankole.killAll()
  })
  await ankole.start()
  return ankole
}
