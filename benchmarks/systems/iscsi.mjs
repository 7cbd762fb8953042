// fio's libiscsi engine.

/** The file's name is the URL; fio splits names at colons that are not escaped. */
export function iscsiTarget({ portal, iqn, lun }) {
  const url = `iscsi://${portal}/${iqn}/${lun}`
  return ['--ioengine=libiscsi', `--filename=${url.replaceAll(':', '\\:')}`]
}
