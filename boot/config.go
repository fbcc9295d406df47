package boot

import (
	"crypto/sha256"
	"errors"
	"io/fs"

	"waxseal/boot/canon"
)

// listAbove is the number of records of one item above which they become one
// list.
const listAbove = 32

// files records configuration or start-up files.
//
// A path without a pattern always gives a record, if only …!absent. Patterns
// give a record for each file they match; if the item's patterns match none,
// a list without lines says that somebody looked; if a directory could not be
// read or has too many entries, …/@list?c=list1!error says so in their place.
func (e emitter) files(it Item) error {
	list := it.prefix() + "/@list?c=" + string(canon.List1)
	tree, err := e.src.Tree(e.ctx, it.Volume)
	if err != nil {
		return e.noTree(it, list, e.sourceError(err))
	}
	found, none, err := e.find(it, tree)
	switch {
	case err != nil:
		err = e.missing(list, err)
	case none:
		err = e.list(it.prefix(), nil)
	case len(found) > listAbove:
		return e.filesAsList(it, tree, found)
	}
	if err != nil {
		return err
	}
	for _, f := range found {
		m, err := e.measureFile(it, tree, f)
		if err != nil {
			return err
		}
		if err := e.send(m); err != nil {
			return err
		}
	}
	return nil
}

// noTree records that the whole volume is not there.
func (e emitter) noTree(it Item, list string, why error) error {
	found, open := it.literals()
	for _, f := range found {
		name, full := recordName(it.prefix(), f.item, it.canon())
		if err := e.keep(full); err != nil {
			return err
		}
		if err := e.missing(name, why); err != nil {
			return err
		}
	}
	if !open {
		return nil
	}
	return e.missing(list, why)
}

// filesAsList records one list over all files.
func (e emitter) filesAsList(it Item, tree fs.FS, found []match) error {
	var entries []canon.Entry
	for _, f := range found {
		m, err := e.measureFile(it, tree, f)
		if err != nil {
			return err
		}
		entries = append(entries, canon.Entry{SHA256: m.record.Content, Name: m.record.Name})
		m.listed = true
		if err := e.send(m); err != nil {
			return err
		}
	}
	return e.list(it.prefix(), entries)
}

// measureFile returns the step of one file. Its error ends the run.
func (e emitter) measureFile(it Item, tree fs.FS, f match) (step, error) {
	if err := e.due(e.ctx); err != nil {
		return step{}, err
	}
	text, err := readText(tree, f.path, it)
	if err != nil {
		text = canon.Text{Form: it.canon()}
	}
	name, full := recordName(it.prefix(), f.item, text.Form)
	if kerr := e.keep(full); kerr != nil {
		return step{}, kerr
	}
	content, note := sha256.Sum256(text.Bytes), text.Why
	if err != nil {
		name, content = missingName(name, err)
		note = err
	}
	rec, rerr := e.profile.Sum(name, content)
	if rerr != nil {
		return step{}, rerr
	}
	s := step{record: rec, note: note}
	if err == nil && text.Public {
		s.keep = e.room(text.Bytes)
	}
	return s, nil
}

// readText returns a file in the item's canonical form, or the target of a
// symbolic link.
func readText(tree fs.FS, name string, it Item) (canon.Text, error) {
	if links, ok := tree.(fs.ReadLinkFS); ok {
		target, err := links.ReadLink(name)
		if err == nil {
			return canon.Text{Form: canon.Link1, Bytes: []byte(target), Public: true}, nil
		}
		if errors.Is(err, fs.ErrNotExist) {
			return canon.Text{}, err
		}
	}
	content, err := readFile(tree, name, it.maxSize())
	if err != nil {
		return canon.Text{}, err
	}
	return canon.Of(it.canon(), content), nil
}
