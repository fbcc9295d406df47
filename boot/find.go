package boot

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// match is a file that an item names: its path in the tree, and the path as it
// stands in the record, not yet escaped.
type match struct{ path, item string }

// maxDepth bounds how deep directories are searched.
const maxDepth = 32

// literals returns the item's paths that are no patterns, and whether there
// are patterns besides.
func (it Item) literals() (found []match, open bool) {
	for _, p := range it.patterns() {
		if isPattern(p) {
			open = true
			continue
		}
		found = append(found, match{p, it.relative(p, p)})
	}
	return found, open
}

// find returns what the item's paths and patterns name, sorted by record path,
// each once. none tells that there are patterns and that they match nothing.
// With an error come the literal paths alone.
func (e emitter) find(it Item, tree fs.FS) (all []match, none bool, err error) {
	literals, open := it.literals()
	f := finder{emitter: e, tree: tree, left: it.maxEntries(), found: map[match]bool{}}
	for _, p := range it.patterns() {
		if !isPattern(p) {
			continue
		}
		f.item = func(name string) string { return it.relative(p, name) }
		if err := f.expand(".", strings.Split(p, "/")); err != nil {
			return sorted(literals), false, err
		}
	}
	none = open && len(f.found) == 0
	for _, l := range literals {
		f.found[l] = true
	}
	for m := range f.found {
		all = append(all, m)
	}
	return sorted(all), none, nil
}

func sorted(ms []match) []match {
	slices.SortFunc(ms, func(a, b match) int { return strings.Compare(a.item, b.item) })
	return ms
}

// finder expands patterns. It looks at a bounded number of entries and never
// holds more than the matches and one batch of a directory.
type finder struct {
	emitter
	tree  fs.FS
	item  func(name string) string
	left  int // entries that may still be looked at
	found map[match]bool
}

// batch is how many entries of a directory are read at once.
const batch = 256

// expand finds what parts of a pattern match below dir. A directory that is
// not there has no matches.
func (f *finder) expand(dir string, parts []string) error {
	for len(parts) > 1 && !isPattern(parts[0]) {
		dir, parts = path.Join(dir, parts[0]), parts[1:]
	}
	if parts[0] == "**" {
		return f.below(dir, 0)
	}
	return f.each(dir, func(d fs.DirEntry) error {
		ok, err := path.Match(parts[0], d.Name())
		if err != nil || !ok {
			return err
		}
		name := join(dir, d.Name())
		switch {
		case len(parts) > 1 && d.IsDir():
			return f.expand(name, parts[1:])
		case len(parts) > 1 && d.Type()&fs.ModeSymlink == 0:
			return nil
		case d.IsDir():
			return f.below(name, 0)
		}
		f.add(name)
		return nil
	})
}

// below finds all files below dir.
func (f *finder) below(dir string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%s: more than %d directories deep", dir, maxDepth)
	}
	return f.each(dir, func(d fs.DirEntry) error {
		name := join(dir, d.Name())
		if d.IsDir() {
			return f.below(name, depth+1)
		}
		f.add(name)
		return nil
	})
}

func (f *finder) add(name string) { f.found[match{name, f.item(name)}] = true }

// each calls visit with each entry of dir.
func (f *finder) each(dir string, visit func(fs.DirEntry) error) error {
	file, err := f.tree.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	d, ok := file.(fs.ReadDirFile)
	if !ok {
		return fmt.Errorf("%s: not a directory", dir)
	}
	for {
		if err := f.ctx.Err(); err != nil {
			return err
		}
		entries, err := d.ReadDir(batch)
		for _, entry := range entries {
			if f.left--; f.left < 0 {
				return fmt.Errorf("%s: more entries than the policy's max_entries", dir)
			}
			if err := visit(entry); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("%s: %w", dir, err)
		}
	}
}

// join is path.Join for a name that may be anything but empty.
func join(dir, name string) string {
	if dir == "." {
		return name
	}
	return dir + "/" + name
}
