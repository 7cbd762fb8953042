#include "nbd/handshake.h"

namespace ankole::nbd {

namespace {

static_assert(4 * sizeof(OptionReplyBytes) + 4 * 16 + 2 * kExportNameBytesMax + 64 <=
              kOptionRepliesBytesMax);

// The empty name is the default export, which is the only one.
bool Names(std::string_view name, const Export& volume) {
  return name.empty() || name == volume.name;
}

void Refuse(Encoder* to, Option option, OptionReply type, std::string_view message) {
  EncodeOptionReply(to, option, type, static_cast<uint32_t>(message.size()));
  to->Text(message);
}

void Ack(Encoder* to, Option option) { EncodeOptionReply(to, option, OptionReply::kAck, 0); }

void InfoText(Encoder* to, Option option, Info info, std::string_view text) {
  EncodeOptionReply(to, option, OptionReply::kInfo, static_cast<uint32_t>(2 + text.size()));
  to->U16(static_cast<uint16_t>(info));
  to->Text(text);
}

// INFO and GO differ only in what comes after.
HandshakeStep AnswerInfo(Option option, std::span<const std::byte> data, const Export& volume,
                         const Negotiated& negotiated, Encoder* to) {
  const std::optional<InfoOption> info = DecodeInfoOption(data);
  if (!info) {
    Refuse(to, option, OptionReply::kErrorInvalid, "malformed option");
    return HandshakeStep::kNextOption;
  }
  if (!Names(info->name, volume)) {
    Refuse(to, option, OptionReply::kErrorUnknown,
           "no volume, and no snapshot that can be read, of that name here");
    return HandshakeStep::kNextOption;
  }
  EncodeOptionReply(to, option, OptionReply::kInfo, 12);
  to->U16(static_cast<uint16_t>(Info::kExport));
  to->U64(volume.size_bytes);
  to->U16(TransmissionFlags(negotiated, volume.read_only));
  // Sent to everybody: the sizes are limits, not hints.
  EncodeOptionReply(to, option, OptionReply::kInfo, 14);
  to->U16(static_cast<uint16_t>(Info::kBlockSize));
  to->U32(kBlockBytesMin);
  to->U32(kBlockBytesPreferred);
  to->U32(kRequestBytesMax);
  if (info->wants_name) InfoText(to, option, Info::kName, volume.name);
  if (info->wants_description) {
    InfoText(to, option, Info::kDescription, "Ankole volume " + volume.name);
  }
  Ack(to, option);
  return option == Option::kGo ? HandshakeStep::kTransmission : HandshakeStep::kNextOption;
}

void AnswerMetaContext(Option option, std::span<const std::byte> data, const Export& volume,
                       Negotiated* negotiated, Encoder* to) {
  const std::optional<MetaContextOption> request = DecodeMetaContextOption(data);
  if (!request || !negotiated->structured_replies) {
    Refuse(to, option, OptionReply::kErrorInvalid,
           request ? "structured replies come first" : "malformed option");
    return;
  }
  const bool set = option == Option::kSetMetaContext;
  // Every SET replaces what was selected before, one that fails too.
  if (set) negotiated->block_status = false;
  if (!Names(request->name, volume)) {
    Refuse(to, option, OptionReply::kErrorUnknown,
           "no volume, and no snapshot that can be read, of that name here");
    return;
  }
  if (set ? request->selects_allocation : request->lists_allocation) {
    if (set) negotiated->block_status = true;
    EncodeOptionReply(to, option, OptionReply::kMetaContext,
                      static_cast<uint32_t>(4 + kAllocationContext.size()));
    to->U32(set ? kAllocationContextId : 0);
    to->Text(kAllocationContext);
  }
  Ack(to, option);
}

}  // namespace

std::string_view AskedExport(Option option, std::span<const std::byte> data) {
  switch (option) {
    case Option::kExportName:
      return {reinterpret_cast<const char*>(data.data()), data.size()};
    case Option::kInfo:
    case Option::kGo: {
      const std::optional<InfoOption> info = DecodeInfoOption(data);
      return info ? info->name : std::string_view();
    }
    case Option::kListMetaContext:
    case Option::kSetMetaContext: {
      const std::optional<MetaContextOption> request = DecodeMetaContextOption(data);
      return request ? request->name : std::string_view();
    }
    default:
      return {};
  }
}

HandshakeStep AnswerOption(Option option, std::span<const std::byte> data, const Export& volume,
                           Negotiated* negotiated, Encoder* replies, std::string* cause) {
  const std::string_view text(reinterpret_cast<const char*>(data.data()), data.size());
  switch (option) {
    case Option::kExportName:
      // This option has no way to say no.
      if (!Names(text, volume)) {
        *cause = "asked for '" + Printable(text) + "', which is not here";
        return HandshakeStep::kRefuse;
      }
      replies->U64(volume.size_bytes);
      replies->U16(TransmissionFlags(*negotiated, volume.read_only));
      if (!negotiated->no_zeroes) replies->Zeroes(124);
      return HandshakeStep::kTransmission;
    case Option::kAbort:
      Ack(replies, option);
      return HandshakeStep::kEnd;
    case Option::kList:
      if (!data.empty()) {
        Refuse(replies, option, OptionReply::kErrorInvalid, "malformed option");
        return HandshakeStep::kNextOption;
      }
      EncodeOptionReply(replies, option, OptionReply::kServer,
                        static_cast<uint32_t>(4 + volume.name.size()));
      replies->U32(static_cast<uint32_t>(volume.name.size()));
      replies->Text(volume.name);
      Ack(replies, option);
      return HandshakeStep::kNextOption;
    case Option::kInfo:
    case Option::kGo:
      return AnswerInfo(option, data, volume, *negotiated, replies);
    case Option::kStructuredReply:
      if (!data.empty()) {
        Refuse(replies, option, OptionReply::kErrorInvalid, "malformed option");
        return HandshakeStep::kNextOption;
      }
      negotiated->structured_replies = true;
      Ack(replies, option);
      return HandshakeStep::kNextOption;
    case Option::kListMetaContext:
    case Option::kSetMetaContext:
      AnswerMetaContext(option, data, volume, negotiated, replies);
      return HandshakeStep::kNextOption;
    case Option::kStartTls:
    default:
      Refuse(replies, option, OptionReply::kErrorUnsupported, "not supported");
      return HandshakeStep::kNextOption;
  }
}

std::string Printable(std::string_view name) {
  std::string text(name.substr(0, kExportNameBytesMax));
  for (char& c : text) {
    if (c < 0x20 || c > 0x7e) c = '?';
  }
  return text;
}

}  // namespace ankole::nbd
