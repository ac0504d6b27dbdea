"""Write the files of this folder that ROOT itself made, and beside each the values that ROOT reads from it.

pip install root==0.1a12 && python tests/data/write_with_root.py tests/data
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

MACRO = r"""
#include <ROOT/RField.hxx>
#include <ROOT/RNTupleModel.hxx>
#include <ROOT/RNTupleWriteOptions.hxx>
#include <ROOT/RNTupleWriter.hxx>
#include <TFile.h>
#include <TRandom3.h>
#include <TTree.h>
#include <limits>
using namespace ROOT;
using Type = ENTupleColumnType;

template <class T, class Change> void add(RNTupleModel &model, const char *name, Change change) {
  auto field = std::make_unique<RField<T>>(name);
  change(*field);
  model.AddField(std::move(field));
}

void write_ntuple(const char *path, int events, int compression, int every) {
  auto m = RNTupleModel::Create();
  auto flag = m->MakeField<bool>("flag");
  auto i8 = m->MakeField<std::int8_t>("i8"); auto u8 = m->MakeField<std::uint8_t>("u8");
  auto i16 = m->MakeField<std::int16_t>("i16"); auto u16 = m->MakeField<std::uint16_t>("u16");
  auto i32 = m->MakeField<std::int32_t>("i32"); auto u32 = m->MakeField<std::uint32_t>("u32");
  auto i64 = m->MakeField<std::int64_t>("i64"); auto u64 = m->MakeField<std::uint64_t>("u64");
  auto f = m->MakeField<float>("f"); auto d = m->MakeField<double>("d");
  auto vf = m->MakeField<std::vector<float>>("vf"); auto vi = m->MakeField<std::vector<std::int32_t>>("vi");
  auto vb = m->MakeField<std::vector<bool>>("vb"); auto never = m->MakeField<std::vector<double>>("never");
  auto three = m->MakeField<std::array<std::int16_t, 3>>("three");
  auto vv = m->MakeField<std::vector<std::vector<float>>>("vv"); auto text = m->MakeField<std::string>("text");
  auto maybe = m->MakeField<std::optional<float>>("maybe");
  add<float>(*m, "half", [](auto &field) { field.SetHalfPrecision(); });
  add<float>(*m, "truncated", [](auto &field) { field.SetTruncated(20); });
  add<float>(*m, "quantised", [](auto &field) { field.SetQuantized(-1, 1, 11); });
  add<double>(*m, "double32", [](auto &field) { field.SetDouble32(); });
  auto as = [](Type type) { return [type](auto &field) { field.SetColumnRepresentatives({{type}}); }; };
  add<std::int32_t>(*m, "plain", as(Type::kInt32));
  add<std::vector<float>>(*m, "v32", as(Type::kIndex32));
  add<std::vector<float>>(*m, "vs32", as(Type::kSplitIndex32));
  add<std::vector<float>>(*m, "v64", as(Type::kIndex64));
  m->AddProjectedField(std::make_unique<RField<RNTupleCardinality<std::uint32_t>>>("nvf"),
                       [](const std::string &) { return std::string("vf"); });
  RNTupleWriteOptions options;
  options.SetCompression(compression); options.SetMaxUnzippedPageSize(256); options.SetInitialUnzippedPageSize(64);
  auto writer = RNTupleWriter::Recreate(std::move(m), "Events", path, options);
  auto &entry = writer->GetModel().GetDefaultEntry();
  std::shared_ptr<float> late; std::shared_ptr<std::vector<float>> vlate;
  TRandom3 r(7);
  auto fill = [&](auto &v) { v.clear(); for (int n = r.Uniform(5); n > 0; --n) v.push_back(r.Uniform(-100, 100)); };
  for (int k = 0; k < events; ++k) {
    *flag = r.Rndm() < 0.3; *i8 = int(r.Uniform(-128, 128)); *u8 = int(r.Uniform(256));
    *i16 = int(r.Uniform(-32768, 32768)); *u16 = int(r.Uniform(65536)); *i32 = int(r.Uniform(-2e9, 2e9));
    *u32 = unsigned(r.Uniform(4e9)); *i64 = Long64_t(r.Uniform(-9e18, 9e18)); *u64 = (1ULL << 53) + 1 + 2ULL * k;
    *f = k % 17 ? r.Gaus() : std::numeric_limits<float>::quiet_NaN();
    *d = k % 13 ? r.Gaus() : -std::numeric_limits<double>::infinity();
    fill(*vf); fill(*vi); vb->assign(k % 4, k % 3 == 0);
    for (int j = 0; j < 3; ++j) (*three)[j] = 3 * k + j;
    vv->assign(k % 3, {1.f}); *text = "event"; if (k % 2) *maybe = k; else maybe->reset();
    *entry.GetPtr<float>("half") = r.Uniform(100); *entry.GetPtr<float>("truncated") = r.Gaus();
    *entry.GetPtr<float>("quantised") = r.Uniform(-1, 1); *entry.GetPtr<double>("double32") = r.Gaus();
    *entry.GetPtr<std::int32_t>("plain") = k - 50;
    for (auto name : {"v32", "vs32", "v64"}) fill(*entry.GetPtr<std::vector<float>>(name));
    if (late) { *late = k; fill(*vlate); }
    writer->Fill();
    if (k % every == every - 1) writer->CommitCluster();
    if (k == events / 2) {
      auto updater = writer->CreateModelUpdater();
      updater->BeginUpdate();
      late = updater->MakeField<float>("late"); vlate = updater->MakeField<std::vector<float>>("vlate");
      updater->CommitUpdate();
    }
  }
}

struct Pair { float x; int n; };

void write_tree(const char *path, int events, int compression) {
  TFile file(path, "RECREATE", "", compression);
  TTree tree("Events", "");
  Double32_t d32, d32l[20], packed[3]; Float16_t f16, ranged, f16l[20]; bool flag; ULong64_t u64; Long64_t i64; float f;
  double d; Int_t n; float x[20], m22[2][2]; char chars[16]; Pair pair;
  std::vector<float> vf; std::vector<std::vector<float>> vv; std::string text; std::vector<bool> vb; std::vector<int> never;
  tree.Branch("d32", &d32, "d32/d"); tree.Branch("packed", packed, "packed[3]/d[-10,10,16]");
  tree.Branch("f16", &f16, "f16/f"); tree.Branch("ranged", &ranged, "ranged/f[0,100,12]");
  tree.Branch("flag", &flag, "flag/O"); tree.Branch("u64", &u64, "u64/l"); tree.Branch("i64", &i64, "i64/L");
  tree.Branch("f", &f, "f/F"); tree.Branch("d", &d, "d/D"); tree.Branch("n", &n, "n/I"); tree.Branch("x", x, "x[n]/F");
  tree.Branch("d32l", d32l, "d32l[n]/d"); tree.Branch("f16l", f16l, "f16l[n]/f[-100,100,10]");
  tree.Branch("vf", &vf); tree.Branch("vv", &vv); tree.Branch("text", &text); tree.Branch("vb", &vb);
  tree.Branch("never", &never); tree.Branch("chars", chars, "chars/C"); tree.Branch("m22", m22, "m22[2][2]/F");
  tree.Branch("pair", &pair, "x/F:n/I");
  TRandom3 r(3);
  for (int k = 0; k < events; ++k) {
    d32 = r.Gaus(); for (auto &value : packed) value = r.Uniform(-10, 10);
    f16 = r.Uniform(100); ranged = r.Uniform(100); flag = k % 3 == 0; u64 = (1ULL << 53) + 1 + 2ULL * k;
    i64 = -(1LL << 53) - 1 - 2LL * k; f = k % 11 ? r.Gaus() : std::numeric_limits<float>::quiet_NaN();
    d = k % 13 ? r.Gaus() : -std::numeric_limits<double>::infinity();
    n = r.Uniform(5); vf.clear();
    for (int j = 0; j < n; ++j) { x[j] = d32l[j] = f16l[j] = r.Uniform(-100, 100); vf.push_back(x[j]); }
    vv.assign(k % 3, {1.f}); text = "event"; vb.assign(k % 3, k % 2); snprintf(chars, 16, "n%d", k);
    for (int j = 0; j < 4; ++j) m22[j / 2][j % 2] = k;
    pair = {float(k), -k};
    tree.Fill();
    if (k == events / 2) tree.FlushBaskets();
  }
  tree.Write();
}
"""

NO_NUMBERS = {"vv", "text", "maybe", "chars", "m22", "pair", "pair.x", "pair.n"}


def write_what_root_reads(root: Path, path: Path) -> None:
    """Write content, and for lists the number of values of each event, of every column of numbers."""
    import ROOT

    frame = ROOT.RDataFrame("Events", str(root))
    names = [str(name) for name in frame.GetColumnNames()]
    arrays = {}
    for name in names:
        if name in NO_NUMBERS or name.startswith("R_rdf"):
            continue
        values = frame.AsNumpy([name])[name]
        if values.dtype == object:
            arrays[f"{name} lengths"] = np.array([len(value) for value in values])
            flat = [np.asarray(value) for value in values if len(value)]
            values = np.concatenate(flat) if flat else np.empty(0)
        elif values.ndim > 1:
            arrays[f"{name} lengths"] = np.full(len(values), values.shape[1])
            values = values.reshape(-1)
        arrays[name] = values
    np.savez_compressed(path, **arrays)


if __name__ == "__main__":
    import ROOT

    folder = Path(sys.argv[1])
    ROOT.gInterpreter.Declare(MACRO)
    ROOT.write_ntuple(str(folder / "root-ntuple-zstd.root"), 120, 505, 25)
    ROOT.write_ntuple(str(folder / "root-ntuple-plain.root"), 120, 0, 25)
    ROOT.write_tree(str(folder / "root-tree-types.root"), 60, 101)
    write_what_root_reads(folder / "root-ntuple-zstd.root", folder / "root-ntuple.npz")
    write_what_root_reads(folder / "root-tree-types.root", folder / "root-tree-types.npz")
