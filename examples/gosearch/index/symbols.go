package index

import (
	"go/ast"
	"go/doc"
	"go/token"
	"path"
	"strings"
)

// fileBuilder adds one file's symbols.
type fileBuilder struct {
	*builder
	files     *token.FileSet
	pkg, name string
	minor     bool
}

// document is a symbol as it is found in the source.
type document struct {
	name, receiver, kind, signature string
	doc                             *ast.CommentGroup
	body                            ast.Node
	at                              token.Pos
}

func (f *fileBuilder) function(d *ast.FuncDecl) {
	found := document{name: d.Name.Name, kind: "func", doc: d.Doc, at: d.Pos()}
	if d.Body != nil {
		found.body = d.Body
	}
	found.signature = "func " + d.Name.Name + fields(d.Type.Params)
	if d.Recv != nil && len(d.Recv.List) > 0 {
		found.kind, found.receiver = "method", typeText(d.Recv.List[0].Type)
		found.signature = "func (" + found.receiver + ") " + d.Name.Name + fields(d.Type.Params)
		found.receiver = strings.TrimLeft(found.receiver, "*")
	}
	if d.Type.Results != nil {
		found.signature += " " + fields(d.Type.Results)
	}
	f.add(found)
}

func (f *fileBuilder) general(d *ast.GenDecl) {
	for _, spec := range d.Specs {
		switch s := spec.(type) {
		case *ast.TypeSpec:
			f.add(document{
				name: s.Name.Name, kind: "type", signature: "type " + s.Name.Name + " " + typeText(s.Type),
				doc: first(s.Doc, d.Doc), body: s.Type, at: s.Pos(),
			})
		case *ast.ValueSpec:
			for _, name := range s.Names {
				f.add(document{
					name: name.Name, kind: d.Tok.String(), signature: d.Tok.String() + " " + name.Name + " " + typeText(s.Type),
					doc: first(s.Doc, d.Doc, s.Comment), at: name.Pos(),
				})
			}
		}
	}
}

func first(groups ...*ast.CommentGroup) *ast.CommentGroup {
	for _, group := range groups {
		if group != nil {
			return group
		}
	}
	return nil
}

// add makes a document of a symbol.
func (f *fileBuilder) add(d document) {
	if d.name == "_" {
		return
	}
	x := f.index
	id := uint32(len(x.symbols))
	comment := d.doc.Text()
	name := d.name
	if d.receiver != "" {
		name = d.receiver + "." + d.name
	}
	x.symbols = append(x.symbols, symbol{
		pkg: f.pkg, name: name, kind: d.kind, signature: strings.TrimSpace(d.signature),
		synopsis: new(doc.Package).Synopsis(comment), file: f.name, line: int32(f.files.Position(d.at).Line),
		minor: f.minor || !ast.IsExported(d.name) && d.kind != "package",
	})
	f.weights, f.length = make(map[string]uint16), 0
	f.count(f.pkg+" "+name, nameWeight)
	f.count(d.signature, signatureWeight)
	f.count(comment, commentWeight)
	if d.body != nil {
		ast.Inspect(d.body, func(node ast.Node) bool {
			if identifier, ok := node.(*ast.Ident); ok {
				f.count(identifier.Name, bodyWeight)
			}
			return true
		})
	}
	for term, weight := range f.weights {
		f.postings[term] = append(f.postings[term], posting{id, weight})
	}
	x.lengths = append(x.lengths, float32(f.length))
	for _, alias := range []string{d.name, name, path.Base(f.pkg) + "." + name, f.pkg + "." + name} {
		f.alias(strings.ToLower(alias), id)
	}
}

func (f *fileBuilder) alias(name string, id uint32) {
	list := f.index.names[name]
	if len(list) > 0 && list[len(list)-1] == id {
		return
	}
	f.index.names[name] = append(list, id)
}

func (f *fileBuilder) count(text string, weight uint16) {
	words(text, func(term string) {
		f.length++
		if sum := f.weights[term] + weight; sum > f.weights[term] {
			f.weights[term] = sum
		}
	})
}

// fields writes parameters by their types.
func fields(list *ast.FieldList) string {
	var types []string
	for _, field := range list.List {
		text := typeText(field.Type)
		for _, name := range field.Names {
			types = append(types, name.Name+" "+text)
		}
		if len(field.Names) == 0 {
			types = append(types, text)
		}
	}
	return "(" + strings.Join(types, ", ") + ")"
}

// typeText writes a type in short.
func typeText(e ast.Expr) string {
	switch t := e.(type) {
	case nil:
		return ""
	case *ast.Ident:
		return t.Name
	case *ast.StarExpr:
		return "*" + typeText(t.X)
	case *ast.SelectorExpr:
		return typeText(t.X) + "." + t.Sel.Name
	case *ast.ArrayType:
		return "[]" + typeText(t.Elt)
	case *ast.MapType:
		return "map[" + typeText(t.Key) + "]" + typeText(t.Value)
	case *ast.Ellipsis:
		return "..." + typeText(t.Elt)
	case *ast.IndexExpr:
		return typeText(t.X)
	case *ast.IndexListExpr:
		return typeText(t.X)
	case *ast.FuncType:
		return "func" + fields(t.Params)
	case *ast.InterfaceType:
		return "interface"
	case *ast.StructType:
		return "struct"
	case *ast.ChanType:
		return "chan " + typeText(t.Value)
	}
	return ""
}
