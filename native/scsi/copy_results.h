#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "scsi/answer.h"
#include "scsi/limits.h"
#include "scsi/task.h"

// RECEIVE COPY RESULTS (SPC-4, 6.18 to 6.23): what has become of the EXTENDED COPYs of one nexus.
namespace ankole::scsi {

// A copy that its initiator can ask for.
struct CopyResult {
  uint8_t list_identifier = 0;  // Invariant: of no other of the nexus
  const Task* task = nullptr;   // null: it has ended
  bool failed = false;          // valid when it has ended, as what follows
  uint32_t segments = 0;        // that are done
  uint32_t bytes = 0;           // of all segments
};

// The copies of one nexus, oldest first. An ended one is kept until its list identifier is used
// again, until its place is needed for another one, or until a reset.
class CopyResults {
 public:
  const CopyResult* Find(uint8_t list_identifier) const;
  bool InProgress(uint8_t list_identifier) const;
  // False: as many as can be are in progress. Invariant: none of that identifier is.
  bool Begin(uint8_t list_identifier, const Task& task);
  // Of a task that was not begun here, nothing is kept.
  void End(const Task& task);
  void Forget() { count_ = 0; }

 private:
  void Erase(size_t index);

  std::array<CopyResult, kCopiesMax> copies_ = {};
  size_t count_ = 0;
};

// COPY STATUS (SPC-4, 6.22). Refused where there is no such copy.
std::optional<Sense> BuildCopyStatus(const CopyResults& copies, uint8_t list_identifier,
                                     Answer* to);
// OPERATING PARAMETERS (SPC-4, 6.20).
void BuildCopyParameters(Answer* to);

// Descriptors of an EXTENDED COPY that are understood (SPC-4, tables 114 and 125).
inline constexpr uint8_t kCopyBlockToBlock = 0x02;
inline constexpr uint8_t kCopyIdentification = 0xe4;

}  // namespace ankole::scsi
