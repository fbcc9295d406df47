package restconf

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The modules that documents are checked against are those that the
// yang-library names, in the same revisions.
func TestYANGFilesAreThoseOfTheLibrary(t *testing.T) {
	files, err := filepath.Glob("yang/*.yang")
	if err != nil || len(files) != 6 {
		t.Fatalf("%d YANG files, %v: want 6", len(files), err)
	}
	set := yangLibrary.ModuleSets[0]
	known := slices.Concat(set.Modules, set.ImportOnly)
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		name, revision, _ := strings.Cut(strings.TrimSuffix(filepath.Base(f), ".yang"), "@")
		i := slices.IndexFunc(known, func(m module) bool { return m.Name == name && m.Revision == revision })
		if i < 0 {
			t.Errorf("%s is not in the yang-library", f)
			continue
		}
		for _, want := range []string{"\nmodule " + name + " {", "namespace \"" + known[i].Namespace + "\";", "revision " + revision + " {"} {
			if !strings.Contains(string(text), want) {
				t.Errorf("%s lacks %q", f, want)
			}
		}
		for _, feature := range known[i].Features {
			if !strings.Contains(string(text), "\n  feature "+feature+";") {
				t.Errorf("%s has no feature %s", f, feature)
			}
		}
	}
}

func TestLibraryHasEachModuleOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range yangModules.Modules {
		if seen[m.Name] {
			t.Errorf("%s stands twice", m.Name)
		}
		seen[m.Name] = true
	}
	if len(seen) != 13 {
		t.Errorf("%d modules: want 13", len(seen))
	}
}
