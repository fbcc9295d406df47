package restconf

import (
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// resource answers GET and HEAD.
func (h *Handler) resource(w http.ResponseWriter, r *http.Request, path string) error {
	doc, fixed := documents[path]
	name, isData := strings.CutPrefix(path, data)
	if !fixed && (!isData || name != "" && name[0] != '/') {
		return notFound(path)
	}
	if ok, err := method(w, r, http.MethodGet, http.MethodHead); !ok {
		return err
	}
	part, err := contentOf(r.URL.RawQuery)
	if err != nil {
		return err
	}
	if fixed {
		return doc.answer(w, r)
	}
	if err := accepts(r, yangData); err != nil {
		return err
	}
	v, err := h.data(strings.TrimPrefix(name, "/"), part)
	if err != nil {
		return err
	}
	return h.write(w, yangData, v)
}

func notFound(path string) problem {
	return problem{http.StatusNotFound, protocol, "invalid-value", "there is no resource " + path}
}

// content is the query parameter that wants a part of the data (RFC 8040,
// section 4.8.1).
type content string

const (
	all       content = "all"
	config    content = "config"
	nonconfig content = "nonconfig"
)

// contentOf reads a query. The optional parameters are not supported, and the
// capabilities do not name them.
func contentOf(query string) (content, error) {
	if query == "" {
		return all, nil
	}
	value, ok := strings.CutPrefix(query, "content=")
	switch c := content(value); {
	case ok && (c == all || c == config || c == nonconfig):
		return c, nil
	}
	return "", problem{http.StatusBadRequest, protocol, "invalid-value", "query parameters: only content=all, config or nonconfig is supported"}
}

// data returns what stands at a path below the data.
func (h *Handler) data(path string, part content) (any, error) {
	top := map[string]func() any{charraNode: func() any { return h.support().only(part) }}
	if part != config {
		top[libraryNode] = func() any { return yangLibrary }
		top[modulesNode] = func() any { return yangModules }
		top[monitoringNode] = func() any { return restconfState }
	}
	if path == "" {
		tree := map[string]any{}
		for name, node := range top {
			tree[name] = node()
		}
		return map[string]any{"ietf-restconf:data": tree}, nil
	}
	first, rest, deeper := strings.Cut(path, "/")
	node, ok := top[first]
	if !ok {
		return nil, notFound(data + "/" + path)
	}
	if !deeper {
		return map[string]any{first: node()}, nil
	}
	module, _, _ := strings.Cut(first, ":")
	return descend(node(), module, strings.Split(rest, "/"))
}

// descend goes down the path of a data resource (RFC 8040, section 3.5.3). All
// nodes below the top are of one module.
func descend(node any, module string, path []string) (any, error) {
	v, err := json.Marshal(node)
	if err != nil {
		return nil, err
	}
	name := ""
	at := jsontext.Value(v)
	for _, step := range path {
		var keys string
		var isEntry bool
		name, keys, isEntry = strings.Cut(step, "=")
		if at = member(at, name); at == nil {
			return nil, notFound(step)
		}
		switch isList := at.Kind() == '['; {
		case isList && isEntry:
			if at = entryOf(at, strings.Split(keys, ",")); at == nil {
				return nil, notFound(step)
			}
		case isList || isEntry:
			return nil, problem{http.StatusBadRequest, protocol, "invalid-value", step + ": the entry of a list is named by its keys, and nothing else is"}
		}
	}
	if strings.Contains(path[len(path)-1], "=") {
		return map[string][]jsontext.Value{module + ":" + name: {at}}, nil
	}
	return map[string]jsontext.Value{module + ":" + name: at}, nil
}

// member returns a member of an object, nil if there is none.
func member(object jsontext.Value, name string) jsontext.Value {
	var members map[string]jsontext.Value
	if json.Unmarshal(object, &members) != nil {
		return nil
	}
	return members[name]
}

// entryOf returns the entry of an array whose keys are these. The keys of an
// entry are its first members; that of a leaf-list is its value.
func entryOf(array jsontext.Value, keys []string) jsontext.Value {
	var entries []jsontext.Value
	if json.Unmarshal(array, &entries) != nil {
		return nil
	}
	for _, e := range entries {
		if hasKeys(e, keys) {
			return e
		}
	}
	return nil
}

func hasKeys(entry jsontext.Value, keys []string) bool {
	d := jsontext.NewDecoder(strings.NewReader(string(entry)))
	object := entry.Kind() == '{'
	if object {
		_, _ = d.ReadToken()
	}
	for _, key := range keys {
		want, err := url.PathUnescape(key)
		if err != nil {
			return false
		}
		if object {
			_, _ = d.ReadToken() // the name
		}
		got, err := d.ReadToken()
		if err != nil || got.String() != want {
			return false
		}
	}
	return true
}

// document is a resource that is always the same.
type document struct{ media, text string }

func (d document) answer(w http.ResponseWriter, r *http.Request) error {
	if err := accepts(r, d.media); err != nil {
		return err
	}
	w.Header().Set("Content-Type", d.media)
	_, _ = io.WriteString(w, d.text) // a client that has gone needs no answer
	return nil
}
