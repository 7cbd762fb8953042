#include "iscsi/text_exchange.h"

#include <algorithm>

namespace ankole::iscsi {

bool TextExchange::Take(const TextRequest& request, std::string_view data,
                        const TargetList& targets, std::string_view own, Negotiation* negotiation,
                        TextReply* reply) {
  reply->header = {};
  reply->header.opcode = static_cast<uint8_t>(Opcode::kTextResponse);
  reply->header.lun = request.lun;
  reply->header.task_tag = request.task_tag;
  reply->header.transfer_tag = kNoTag;
  reply->text.clear();
  if (request.transfer_tag == kNoTag) {
    request_.clear();
    answer_.clear();
    listing_ = false;
    if (++tag_ == kNoTag) tag_ = 1;
  } else if (!open_ || request.transfer_tag != tag_) {
    return false;
  }
  open_ = false;
  const uint32_t bytes_max = negotiation->parameters().send_segment_bytes_max;
  if (!answer_.empty() || listing_) {
    // The initiator asks for the rest.
    if (!data.empty()) return false;
    NextPart(request, targets, bytes_max, reply);
    return true;
  }
  if (request_.size() + data.size() > kTextBytesMax) return false;
  request_.append(data);
  if ((request.flags & kFlagContinue) != 0) {
    open_ = true;
    reply->header.transfer_tag = tag_;
    return true;
  }
  const std::string text = std::move(request_);
  request_.clear();
  std::optional<std::vector<Pair>> pairs = ParseText(text);
  if (!pairs) return false;
  if (const auto asked = Find(*pairs, "SendTargets")) {
    SendTargets(*asked, targets, own);
    std::erase_if(*pairs, [](const Pair& pair) { return pair.key == "SendTargets"; });
  }
  if (!negotiation->Answer(*pairs, NegotiationScope::kFullFeature, &answer_)) return false;
  NextPart(request, targets, bytes_max, reply);
  return true;
}

void TextExchange::SendTargets(std::string_view value, const TargetList& targets,
                               std::string_view own) {
  if (value == "All") {
    // RFC 7143, appendix C: in a discovery session only.
    if (!own.empty()) return AppendPair(&answer_, "SendTargets", "Reject");
    listing_ = true;
    next_target_ = 0;
    return;
  }
  const std::optional<std::string> name = value.empty() ? std::string(own) : ParseName(value);
  // Without a value it asks for the target of its session, which discovery has not.
  if (!name || name->empty()) return AppendPair(&answer_, "SendTargets", "Reject");
  if (!own.empty() && *name != own) return;
  if (targets.HasTarget(*name)) AppendTarget(targets, *name);
}

void TextExchange::AppendTarget(const TargetList& targets, const std::string& name) {
  AppendPair(&answer_, "TargetName", name);
  if (!targets.portal().empty()) AppendPair(&answer_, "TargetAddress", targets.portal());
}

// As much as fits into one PDU.
void TextExchange::NextPart(const TextRequest& request, const TargetList& targets,
                            uint32_t bytes_max, TextReply* reply) {
  bytes_max = std::min<uint32_t>(bytes_max, kDefaultSegmentBytes);
  while (listing_ && answer_.size() <= bytes_max) {
    if (next_target_ < targets.count()) {
      AppendTarget(targets, targets.target(next_target_++));
    } else {
      listing_ = false;
    }
  }
  reply->text = answer_.substr(0, bytes_max);
  answer_.erase(0, reply->text.size());
  const bool rest = listing_ || !answer_.empty();
  const bool final = !rest && (request.flags & kFlagFinal) != 0;
  if (rest) reply->header.flags |= kFlagContinue;
  if (final) reply->header.flags |= kFlagFinal;
  open_ = !final;
  if (open_) reply->header.transfer_tag = tag_;
}

}  // namespace ankole::iscsi
