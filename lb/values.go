package lb

// What the keys of a service say, as values that files, JSON and changes are
// written from.

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Value is what a key says.
type Value struct {
	// Word is the key.
	Word string
	// Value is a string, a number, a []string, a Joined or a Mapping; nil where
	// the key says nothing.
	Value any
	// Default says that it holds without the key, too.
	Default bool
	// Hidden says that the kernel knows it at times only, so that what is
	// shown of the kernel leaves it out.
	Hidden bool
}

// Values are what the keys of a mapping say, in the order of the reference. As
// JSON they are an object of those that say something and are not hidden; a
// mapping without keys is left out.
type Values []Value

// Joined is a list that is one text in JSON, separated by commas.
type Joined []string

// Mapping is a key whose value has keys of its own.
type Mapping struct {
	// Short is all of it in one word, for files; empty where there is none.
	Short string
	Values
}

// String is the list as JSON has it.
func (j Joined) String() string { return strings.Join(j, ",") }

// MarshalJSON is the list as one text.
func (j Joined) MarshalJSON() ([]byte, error) { return json.Marshal(j.String()) }

// MarshalJSON is the object, in order.
func (v Values) MarshalJSON() ([]byte, error) { return v.AppendJSON(nil) }

// jsonAppender is a value that appends itself. Tens of thousands of services
// make it worth it: what MarshalJSON returns is read again at each level.
type jsonAppender interface {
	AppendJSON(b []byte) ([]byte, error)
}

// AppendJSON appends the object, in order.
func (v Values) AppendJSON(b []byte) (_ []byte, err error) {
	b = append(b, '{')
	first := true
	for _, one := range v {
		m, mapping := one.Value.(Mapping)
		if one.Value == nil || one.Hidden || mapping && len(m.Values) == 0 {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(appendText(b, one.Word), ':')
		if b, err = appendValue(b, one.Value); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

func appendValue(b []byte, value any) ([]byte, error) {
	switch v := value.(type) {
	case string:
		return appendText(b, v), nil
	case Joined:
		return appendText(b, v.String()), nil
	case []string:
		b = append(b, '[')
		for i, text := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendText(b, text)
		}
		return append(b, ']'), nil
	case int:
		return strconv.AppendInt(b, int64(v), 10), nil
	case uint64:
		return strconv.AppendUint(b, v, 10), nil
	case jsonAppender:
		return v.AppendJSON(b)
	}
	text, err := json.Marshal(value)
	return append(b, text...), err
}

// appendText appends a text in quotes.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			text, _ := json.Marshal(s) // a string has no errors
			return append(b, text...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// Text is what a key says, as a change names it; empty where it says nothing.
func (v Values) Text(word string) string {
	for _, one := range v {
		if one.Word == word && one.Value != nil {
			return text(one.Value)
		}
	}
	return ""
}

// Values are what the keys of a service say, without its backends.
func (s *Service) Values() Values { return valuesOf(serviceKeys, s) }

// Values are what the keys of a backend say that is not what the service says.
func (b *Backend) Values(s *Service) Values { return valuesOf(backendKeys, &member{b, s}) }

func valuesOf[T any](keys []key[T], v *T) Values {
	out := make(Values, len(keys))
	for i := range keys {
		k := &keys[i]
		value, usual := k.value(v)
		out[i] = Value{Word: k.word, Value: value, Default: usual, Hidden: k.hidden}
	}
	return out
}

// allDefault reports whether values say nothing that would not hold without them.
func allDefault(v Values) bool {
	for _, one := range v {
		if one.Value != nil && !one.Default {
			return false
		}
	}
	return true
}

// text is a value as a change names it.
func text(value any) string {
	switch v := value.(type) {
	case nil:
		return "none"
	case []string:
		return strings.Join(v, ",")
	case Mapping:
		var parts []string
		for _, one := range v.Values {
			if one.Value != nil {
				parts = append(parts, one.Word+" "+text(one.Value))
			}
		}
		return strings.Join(parts, ", ")
	}
	return fmt.Sprint(value)
}

// known is a number that says nothing where it is zero.
func known[T comparable](v T) any {
	var zero T
	if v == zero {
		return nil
	}
	return v
}

// list is a list that says nothing where it is empty.
func list(values []string) any {
	if len(values) == 0 {
		return nil
	}
	return values
}
