"""The words in the answers of the synthetic engine."""

WORDS = tuple(
    """
    able about above across after again age air all along also always and animal another answer any apple are area arm
    around ask away back bag ball bank be bear beat because bed bee before begin behind bell below best better between
    big bird black blue boat body book both bottle bottom box boy branch bread bridge bright bring brother brown build
    but by call calm camp can car card care carry case cat chair change child circle city class clean clear clock close
    cloud coast coat cold color come common cook cool corn corner could count country cover cross cup cut dance dark day
    deep desk dinner do dog door down draw dream dress drink drive dry each ear early earth east easy eat edge egg eight
    end engine enough even evening every eye face fair fall family far farm fast father feather field fill find fine
    finger fire first fish five flat floor flower fly follow food foot for forest forget four fox free fresh friend from
    front fruit full game garden gate gave gentle get giant gift girl give glad glass go gold good grain grass gray
    great green ground group grow guess had hair half hall hand happy hard has hat have hay he head hear heart heavy
    help her here hide high hill him his hold home honey hope horse hot hour house how hundred ice idea if important in
    inside iron island it jump just keep key kind king kitchen know lake lamp land large last late laugh lead leaf
    learn leave left leg less letter library lid light like line lion list listen little live long look lost loud love
    low lunch machine make many map march market may meadow mean measure meet middle milk mind minute mirror money month
    moon more morning most mother mountain mouse move much music must name narrow near neck need nest never new next
    night nine no north nose not note now number ocean of off often oil old on once one only open or orange order other
    our out over own page paint pair paper part past path pencil people picture piece place plain plan plant play please
    plenty pocket point pond poor pot power press pretty pull pure push put queen question quick quiet rain ran reach
    read ready real red remember rest rice rich ride right ring rise river road rock roof room root rope rose round row
    run sail salt same sand saw say school sea season second see seed seem sell send seven shade shadow shape she sheep
    shell ship shoe shop shore short should show side silent silver simple since sing sister sit six size skin sky sleep
    slow small smell smile snow so soap soft some song soon sound soup south space speak spoon spring square stand star
    start station stay step still stone stop store story straight stream street strong sugar summer sun sure surprise
    swim table tail take tall taste tea teach tell ten than that the their them then there these they thing think this
    thousand three through time tiny to today together told tomorrow too took top touch town toy train travel tree
    true try turn twelve two uncle under until up upon us use valley very village voice wait walk wall want warm was
    wash watch water wave way we weather week well went were west what wheel when where which while white who why wide
    will wind window wing winter wise wish with wolf woman wonder wood word work world would write year yellow yes yet
    you young your zebra
    """.split()  # noqa: SIM905 - 600 quoted strings would be less readable
)
