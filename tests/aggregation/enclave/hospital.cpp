#include "tests/aggregation/enclave/hospital.hpp"

#include <cstring>
#include <numeric>

#include "aggregation/evaluate.hpp"

namespace cloister::tests {

namespace {

constexpr auto patience = std::chrono::seconds(10);

Deadline soon() {
  return std::chrono::steady_clock::now() + patience;
}

// Numbers that add up without rounding, so that the plain computation is exact.
float delta(const std::string& owner, std::uint32_t train_round, std::size_t i) {
  std::uint32_t x = train_round * 2654435761u + static_cast<std::uint32_t>(i) * 40503u;
  for (const char c : owner) x = (x ^ static_cast<std::uint8_t>(c)) * 16777619u;
  return static_cast<float>(static_cast<std::int32_t>(x % 2049) - 1024) / 1024.0f;
}

void put(Bytes& out, float value) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  for (int i = 0; i < 4; ++i) out.push_back(static_cast<std::uint8_t>(bits >> (8 * i)));
}

}  // namespace

Hospital::Hospital(World& w, std::string o, std::uint64_t wt, Script s)
    : world(w), owner(std::move(o)), weight(wt), script(std::move(s)) {}

Bytes Hospital::update_of(const round::OfferedTask& task) const {
  const attest::Manifest& manifest = world.study->charter.manifest;
  if (task.task == "statistics") {
    const auto plan = enclave::make_plan(world.study->charter);
    std::vector<aggregation::SiteColumn> columns;
    for (const auto& c : plan->statistics->columns)
      columns.push_back({.count = 20,
                         .sum = 20.0 * static_cast<double>(weight),
                         .square_sum = 400.0 * static_cast<double>(weight),
                         .counts = std::vector<std::uint64_t>(c.categories.size(), 10)});
    return aggregation::statistics_update(*plan->statistics, columns, manifest.statistics_minimum_count);
  }
  if (task.task == "evaluate") {
    std::vector<float> scores;
    std::vector<std::uint8_t> positive;
    for (std::size_t i = 0; i < 20; ++i) {
      scores.push_back(static_cast<float>((i * weight) % 10) / 10.0f);
      positive.push_back((i + weight) % 3 == 0);
    }
    return aggregation::evaluate_update(manifest.evaluate_bins, scores, positive, manifest.evaluate_minimum_count);
  }
  Bytes out;
  std::size_t elements = 0;
  for (const auto& t : manifest.tensors)
    elements += std::accumulate(t.shape.begin(), t.shape.end(), std::size_t{1}, std::multiplies<>());
  for (std::size_t i = 0; i < elements; ++i) put(out, delta(owner, task.train_round, i));
  return out;
}

round::Participant Hospital::machine_for(std::uint64_t run) const {
  return round::Participant(
      {.owner = owner,
       .charter = std::make_shared<const attest::Charter>(world.study->charter),
       .run = run,
       .witness_key = *world.study->keys(owner).witness,
       .shapes = enclave::make_plan(world.study->charter)->shapes(),
       .gate =
           [](const round::OfferedTask&) {
             attest::Decision yes;
             yes.add({.met = true, .owner = "test", .requirement = "gate", .wanted = "", .found = "", .remedy = ""});
             return yes;
           },
       .withdrawal = {}},
      std::nullopt);
}

awaitable<void> Hospital::take_part(std::uint64_t runs) {
  if (!machine_) machine_.emplace(machine_for(1));
  while (runs_ended < runs) {
    link_ = co_await world.dial(owner, script.attester);
    ++connections;
    receipt_key_ = protocols::launch::Record::parse(link_->record())->receipt;
    bool lost = false;
    try {
      co_await perform(machine_->connected(receipt_key_));
      while (runs_ended < runs) co_await handle(co_await link_->receive());
    } catch (const Exception&) {
      if (script.stays_away && cut_) co_return;
      if (!cut_) throw;
      lost = true;
    }
    if (!lost) break;
    incoming_.reset();
    co_await perform(machine_->disconnected());
  }
  link_->close();
}

awaitable<void> Hospital::handle(channel::Frame frame) {
  if (frame.type == messages::DATA) {
    if (!incoming_) co_return co_await perform(machine_->unexpected("data"));
    Bytes& model = models_[incoming_->digest];
    model.insert(model.end(), frame.payload.begin(), frame.payload.end());
    model_bytes += frame.payload.size();
    if (model.size() < incoming_->length) co_return;
    const auto digest = incoming_->digest;
    incoming_.reset();
    auto next = base::sha256(model) == digest ? machine_->model_ready(digest) : machine_->model_broken(digest);
    co_return co_await perform(std::move(next));
  }
  const auto message = round::parse_message(frame.type, frame.payload);
  if (!message) throw Exception(message.error());
  seen.emplace_back(round::name(frame.type));
  if (const auto* r = std::get_if<messages::UpdateRefused>(&*message)) refused.push_back(r->reason());
  if (script.on_message) co_await script.on_message(*this, *message);
  if (const auto* offer = std::get_if<messages::Offer>(&*message)) {
    const auto order = attest::RunOrder::parse(base::view(offer->order()));
    if (order && order->run != machine_->run()) {
      ended.reset();
      machine_.emplace(machine_for(order->run));
      co_await perform(machine_->joined(receipt_key_));
    }
  }
  co_await perform(machine_->on(*message));
}

awaitable<void> Hospital::perform(round::ParticipantSteps steps) {
  for (auto& step : steps) co_await std::visit([this](auto& s) { return act(s); }, step);
}

awaitable<void> Hospital::send(const round::Message& message) {
  co_await link_->send(round::type(message), round::protobuf(message));
}

awaitable<void> Hospital::send_data(Bytes bytes) {
  co_await link_->send_data(bytes);
}

awaitable<void> Hospital::act(round::Send& step) {
  if (auto* update = std::get_if<messages::Update>(&step.message);
      update && script.change_announcement && task_ == "train")
    script.change_announcement(*update);
  if (link_) co_await send(step.message);
}

awaitable<void> Hospital::act(round::Charge&) {
  co_return;
}

awaitable<void> Hospital::act(round::NeedModel& step) {
  const auto it = models_.find(step.digest);
  const std::uint64_t held = it == models_.end() ? 0 : it->second.size();
  round::ParticipantSteps next;
  if (held == step.length)
    next = machine_->model_ready(step.digest);
  else
    next = machine_->fetch(step.digest, held);
  co_await perform(std::move(next));
}

awaitable<void> Hospital::act(round::ReceiveModel& step) {
  incoming_ = step;
  models_[step.digest].resize(step.offset);
  co_return;
}

awaitable<void> Hospital::act(round::RunTask& step) {
  const round::OfferedTask task = step.offered;
  task_ = task.task;
  if (script.before_task) co_await script.before_task(*this, task);
  if (script.never_finishes && script.never_finishes(task)) co_return;
  update_ = update_of(task);
  std::uint64_t claimed = task.task == "train" ? weight : 1;
  if (script.change_update) script.change_update(task, update_, claimed);
  co_await perform(machine_->task_done(task.round, base::sha256(update_), update_.size(), claimed));
  if (script.change_sent_bytes && task.task == "train") script.change_sent_bytes(update_);
}

awaitable<void> Hospital::act(round::StopTask&) {
  co_return;
}
awaitable<void> Hospital::act(round::StoreUpdate&) {
  co_return;
}

awaitable<void> Hospital::act(round::SendUpdate& step) {
  upload_offsets.push_back(step.offset);
  if (script.cut_upload_at && !cut_ && task_ == "train") {
    co_await link_->send_data(View(update_).subspan(step.offset, *script.cut_upload_at - step.offset));
    cut_ = true;
    link_->close();
    throw Exception(base::unavailable(owner, "cut"));
  }
  co_await link_->send_data(View(update_).subspan(step.offset, step.length));
}

awaitable<void> Hospital::act(round::SignReceipt&) {
  co_return;
}

awaitable<void> Hospital::act(round::Keep& step) {
  receipts[step.round] = step.committed;
  co_return;
}

awaitable<void> Hospital::act(round::Publish& step) {
  published[step.kind] = step.value;
  co_return;
}

awaitable<void> Hospital::act(round::Refused& step) {
  refused.push_back(step.about + ": " + step.decision.explain());
  co_return;
}

awaitable<void> Hospital::act(round::Disconnect& step) {
  link_->close();
  throw Exception(base::unavailable(owner, step.reason));
  co_return;
}

awaitable<void> Hospital::act(round::SetDeadline&) {
  co_return;
}
awaitable<void> Hospital::act(round::ClearDeadline&) {
  co_return;
}

awaitable<void> Hospital::act(round::Ended& step) {
  ended = step;
  ++runs_ended;
  co_return;
}

// --- Coordinator -----------------------------------------------------------------------------------------------------

awaitable<void> ScriptedCoordinator::connect() {
  link = co_await world.dial("acme");
}

awaitable<void> ScriptedCoordinator::order(const attest::RunOrder& run) {
  co_await order(run, world.initial_model);
}

awaitable<void> ScriptedCoordinator::order(const attest::RunOrder& run, Bytes initial) {
  messages::RunOrder message;
  const Bytes bytes = run.serialize();
  message.set_order(bytes.data(), bytes.size());
  message.set_model_length(initial.size());
  end.reset();
  co_await link->send(messages::RUN_ORDER, message);
  messages::Transfer header;
  header.set_what("model");
  const auto digest = base::sha256(initial);
  header.set_digest(digest.data(), digest.size());
  header.set_length(initial.size());
  co_await link->send(messages::TRANSFER, header);
  co_await link->send_data(initial);
}

awaitable<void> ScriptedCoordinator::ask(const attest::RunOrder& run) {
  messages::RunOrder message;
  const Bytes bytes = run.serialize();
  message.set_order(bytes.data(), bytes.size());
  co_await link->send(messages::RUN_ORDER, message);
}

awaitable<void> ScriptedCoordinator::cancel(std::uint64_t run, std::string reason) {
  messages::RunCancel message;
  message.set_run(run);
  message.set_reason(std::move(reason));
  co_await link->send(messages::RUN_CANCEL, message);
}

awaitable<void> ScriptedCoordinator::hear() {
  const auto frame = co_await with_deadline(link->receive(), soon() + patience, "acme: the run's news");
  if (frame.type == messages::RUN_STATUS) statuses.push_back(channel::parse<messages::RunStatus>(frame));
  if (frame.type == messages::RECEIPT_RECORD) records.push_back(channel::parse<messages::ReceiptRecord>(frame));
  if (frame.type == messages::RUN_END) end = channel::parse<messages::RunEnd>(frame);
  if (frame.type != messages::RESULT) co_return;
  const auto result = channel::parse<messages::Result>(frame);
  results[result.kind()].push_back(result);
  if (result.kind() != "model") co_return;
  const auto header = channel::parse<messages::Transfer>(co_await link->receive());
  model.clear();
  while (model.size() < header.length()) {
    const auto data = co_await link->receive();
    model.insert(model.end(), data.payload.begin(), data.payload.end());
  }
}

awaitable<messages::RunEnd> ScriptedCoordinator::until_end() {
  while (!end) co_await hear();
  co_return *end;
}

awaitable<void> ScriptedCoordinator::until(std::function<bool()> stop) {
  while (!stop()) co_await hear();
}

}  // namespace cloister::tests
