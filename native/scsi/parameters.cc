#include "scsi/body.h"
#include "scsi/copy_results.h"
#include "scsi/inquiry.h"
#include "scsi/log_pages.h"
#include "scsi/report.h"

// Commands that are answered without the device.
namespace ankole::scsi {

void LogicalUnit::Body::Parameters(Task* task) {
  const Command& command = task->command;
  const bool connected = IsThisUnit(task->lun);
  Answer answer(Room(*task));
  std::optional<Sense> refused;
  switch (command.kind) {
    case Kind::kTestUnitReady:
    case Kind::kPreFetch:
    case Kind::kPreventAllow:
      // There is no cache here that could be filled, and no medium that could be removed.
      return Finish(task);
    case Kind::kModeSelect:
      return ModeSelect(task);
    case Kind::kRequestSense:
      BuildRequestSense(task, connected, &answer);
      break;
    case Kind::kInquiry:
      if (command.vital_data) {
        refused = BuildVitalData(command.page, connected, identity_, &answer);
      } else {
        BuildInquiry(connected, &answer);
      }
      break;
    case Kind::kReportLuns:
      BuildReportLuns(command, &answer);
      break;
    case Kind::kModeSense:
      refused = BuildModeSense(command, {mode_, device_.read_only(), capacity_blocks_, resources_},
                               &answer);
      break;
    case Kind::kLogSense:
      refused = BuildLogSense(command, resources_, &answer);
      break;
    case Kind::kReportOperationCodes:
      refused = BuildReportOperationCodes(command, &answer);
      break;
    case Kind::kReportTaskManagement:
      BuildReportTaskManagement(command, &answer);
      break;
    case Kind::kReadCapacity10:
      BuildReadCapacity10(capacity_blocks_, &answer);
      break;
    case Kind::kReadCapacity16:
      BuildReadCapacity16(capacity_blocks_, identity_.physical_block_bytes, &answer);
      break;
    case Kind::kReadDefectData:
      BuildReadDefectData(command, &answer);
      break;
    case Kind::kCopyStatus:
      refused = BuildCopyStatus(task->nexus->copies, command.list_identifier, &answer);
      break;
    case Kind::kCopyParameters:
      BuildCopyParameters(&answer);
      break;
    default:
      CHECK(!"a command that has its own function");
  }
  if (refused) return Refuse(task, *refused);
  Deliver(task, answer);
}

// SPC-4, 6.37: what is wrong is data here, and a unit attention is thereby told.
void LogicalUnit::Body::BuildRequestSense(Task* task, bool connected, Answer* to) {
  Sense sense;
  if (!connected) {
    sense = IllegalRequest(SenseCode::kLogicalUnitNotSupported);
  } else if (!task->nexus->attentions.empty()) {
    sense = task->nexus->attentions.Take();
  } else if (stopped_) {
    sense = {SenseKey::kNotReady, SenseCode::kInitializingCommandRequired, {}, {}, {}};
  }
  sense.descriptor = task->command.descriptor;
  std::byte bytes[kSenseBytesMax];
  const size_t count = EncodeSense(sense, bytes);
  to->Bytes(bytes, count);
}

void LogicalUnit::Body::ModeSelect(Task* task) {
  task->wanted_bytes = task->command.parameter_bytes;
  if (task->out_bytes < task->command.parameter_bytes) {
    return Refuse(task, IllegalRequest(SenseCode::kParameterListLengthError));
  }
  const ModeState before = mode_;
  const std::span<const std::byte> list(task->out[0].data, task->command.parameter_bytes);
  if (const std::optional<Sense> refused =
          ApplyModeSelect(task->command, list, capacity_blocks_, resources_, &mode_)) {
    return Refuse(task, *refused);
  }
  // SPC-4, 5.8: for all nexuses but the one that did it.
  if (mode_ != before) RaiseAll(SenseCode::kModeParametersChanged, task->nexus);
  Finish(task);
}

}  // namespace ankole::scsi
