#pragma once

#include <string>

#include "iscsi/negotiation.h"
#include "iscsi/pdu.h"

// Text Requests after the login (RFC 7143, 11.10 and appendix C): SendTargets, and what may be
// negotiated again. Pure.
namespace ankole::iscsi {

// What SendTargets tells.
class TargetList {
 public:
  virtual size_t count() const = 0;
  // `index` < count(). Between two parts of one answer the list may change.
  virtual const std::string& target(size_t index) const = 0;
  // `name`: as ParseName gives it.
  virtual bool HasTarget(const std::string& name) const = 0;
  // HOST:PORT,TAG of every target. Empty: where the initiator asked.
  virtual const std::string& portal() const = 0;

 protected:
  ~TargetList() = default;
};

struct TextReply {
  TextResponse header;  // all but the numbers
  std::string text;
};

class TextExchange {
 public:
  // `data`: the PDU's. False: it is to be rejected, as it makes no sense at this time. `own`: the
  // target of a normal session, which is all that it may ask for; empty: a discovery session.
  bool Take(const TextRequest& request, std::string_view data, const TargetList& targets,
            std::string_view own, Negotiation* negotiation, TextReply* reply);

 private:
  void SendTargets(std::string_view value, const TargetList& targets, std::string_view own);
  void AppendTarget(const TargetList& targets, const std::string& name);
  void NextPart(const TextRequest& request, const TargetList& targets, uint32_t bytes_max,
                TextReply* reply);

  uint32_t tag_ = 0;      // of the exchange that goes on
  bool open_ = false;     // the initiator may go on with it
  bool listing_ = false;  // of all targets, from next_target_
  size_t next_target_ = 0;
  std::string request_;  // of PDUs with the C bit
  std::string answer_;   // not sent yet
};

}  // namespace ankole::iscsi
