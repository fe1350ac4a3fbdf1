package freshet
