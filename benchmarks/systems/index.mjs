// What can be compared. `copies`: of the data, for the space that a run needs. `needs`: programs. `peer`: whose figures it is
// divided by.
import { ankole, ankoleIscsi, ankoleNoChecksums } from './ankole.mjs'
import { nbdkit } from './nbdkit.mjs'
import { rawFile } from './raw-file.mjs'
import { tgtdAio, tgtdRdwr } from './tgtd.mjs'

export const systems = {
  ankole: { start: ankole, copies: 3, needs: [], peer: 'nbdkit' },
  'ankole-no-checksums': { start: ankoleNoChecksums, copies: 3, needs: [], peer: 'nbdkit' },
  nbdkit: { start: nbdkit, copies: 1, needs: ['nbdkit'], peer: 'nbdkit' },
  raw: { start: rawFile, copies: 1, needs: [], peer: 'nbdkit' },
  'ankole-iscsi': { start: ankoleIscsi, copies: 3, needs: [], peer: 'tgtd-rdwr', iscsi: true },
  'tgtd-rdwr': { start: tgtdRdwr, copies: 1, needs: ['tgtd', 'tgtadm'], peer: 'tgtd-rdwr', iscsi: true },
  'tgtd-aio': { start: tgtdAio, copies: 1, needs: ['tgtd', 'tgtadm'], peer: 'tgtd-rdwr', iscsi: true },
}
