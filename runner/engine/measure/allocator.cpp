// Counts live tensor bytes where they are taken: in torch's allocator of CPU memory.
//
// allocator.py loads it through ctypes, reads a Ledger as it lies in memory, and says its kind.

#include <c10/core/CPUAllocator.h>
#include <c10/core/StorageImpl.h>

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <unordered_map>
#include <utility>

namespace {

struct Tally {
  int64_t live = 0;
  int64_t peak = 0;

  // Whether this is a new peak.
  bool grow(int64_t bytes) {
    live += bytes;
    if (live <= peak) return false;
    peak = live;
    return true;
  }
};

// All that a meter counts. KINDS, a macro, is how many kinds of memory there are.
struct Ledger {
  int64_t kind = 0;      // of what is taken now; Python writes it
  int64_t climbing = 0;  // the total is at a peak that `at_peak` does not show yet
  Tally total;
  Tally kinds[KINDS];
  int64_t at_peak[KINDS] = {};

  void grow(int64_t of, int64_t bytes) {
    kinds[of].grow(bytes);
    if (total.grow(bytes)) climbing = 1;
  }

  void shrink(int64_t of, int64_t bytes) {
    if (climbing) {  // once per summit and not at every step up
      for (int i = 0; i < KINDS; ++i) at_peak[i] = kinds[i].live;
      climbing = 0;
    }
    kinds[of].live -= bytes;
    total.live -= bytes;
  }
};

// What was counted for one piece of memory, and where.
struct Entry {
  Ledger* ledger;
  int64_t kind;
  int64_t bytes;

  void add() const { ledger->grow(kind, bytes); }
  void remove() const { ledger->shrink(kind, bytes); }

  void move(Ledger* to, int64_t as) {
    remove();
    ledger = to;
    kind = as;
    add();
  }
};

// Of the meter that is entered. Of this thread alone: when threads of gloo take and give back their
// buffers hangs on the scheduler, and figures must not.
thread_local Ledger* current = nullptr;

std::mutex mutex;  // over all that follows, and what ledgers count
c10::Allocator* plain = nullptr;  // torch's own
// By address, so that a piece is no larger and no other than without a meter. Never destroyed:
// torch gives memory back until the process has ended.
auto& entries = *new std::unordered_map<void*, Entry>();

void release(void* data) {
  {
    std::lock_guard<std::mutex> lock(mutex);
    auto found = entries.find(data);
    if (found != entries.end()) {  // else it was taken while no meter was entered
      found->second.remove();
      entries.erase(found);
    }
  }
  plain->raw_deleter()(data);
}

class Counting final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) override {
    c10::DataPtr taken = plain->allocate(bytes);
    std::lock_guard<std::mutex> lock(mutex);
    if (current == nullptr || !taken) return taken;
    Entry entry{current, current->kind, static_cast<int64_t>(bytes)};
    entries.emplace(taken.get(), entry);
    entry.add();
    void* data = taken.release_context();
    return {data, data, &release, taken.device()};
  }

  // oneDNN takes its workspaces through it.
  c10::DeleterFnPtr raw_deleter() const override { return &release; }

  void copy_data(void* to, const void* from, size_t bytes) const override {
    plain->copy_data(to, from, bytes);
  }
};

Counting counting;

// Memory that another allocator gave (NumPy, a file, torch before a meter was entered).
struct Adopted {
  c10::DataPtr data;
  Entry entry;
};

void release_adopted(void* context) {
  auto* adopted = static_cast<Adopted*>(context);
  {
    std::lock_guard<std::mutex> lock(mutex);
    adopted->entry.remove();
  }
  delete adopted;
}

// The entry of what `held` holds; null where nobody counts it.
Entry* entry_of(const c10::DataPtr& held) {
  if (held.get_deleter() == &release_adopted)
    return &static_cast<Adopted*>(held.get_context())->entry;
  auto found = held.get_deleter() == &release ? entries.find(held.get()) : entries.end();
  return found == entries.end() ? nullptr : &found->second;
}

}  // namespace

extern "C" {

// One for a meter. Never destroyed: tensors that outlive their meter are counted out of it.
Ledger* new_ledger() { return new Ledger(); }

// What this thread takes from now on is counted in `ledger`, or nowhere. Gives the one before.
Ledger* count_in(Ledger* ledger) {
  std::lock_guard<std::mutex> lock(mutex);
  if (plain == nullptr) {  // it stays: torch may give back to it what it gave
    plain = c10::GetCPUAllocator();
    c10::SetCPUAllocator(&counting, /*priority=*/255);
  }
  return std::exchange(current, ledger);
}

// The memory of `storage` is counted in `ledger` as `kind` from now on, until it is given back.
void adopt(Ledger* ledger, c10::StorageImpl* storage, int64_t kind) {
  storage->set_allocator(&counting);  // resized, it takes its memory here
  const c10::DataPtr& held = storage->mutable_data_ptr();  // its own, if it was a lazy copy
  std::lock_guard<std::mutex> lock(mutex);
  if (!held) return;
  if (Entry* entry = entry_of(held)) return entry->move(ledger, kind);
  Entry entry{ledger, kind, static_cast<int64_t>(storage->nbytes())};
  entry.add();
  void* data = held.get();
  const c10::Device device = held.device();
  auto* adopted = new Adopted{{}, entry};
  adopted->data = storage->set_data_ptr({data, adopted, &release_adopted, device});
}
}
