"""What providers call their fuels, as fuels of the factor table."""

from __future__ import annotations

PRODUCTION_TYPES = {
    "Biomass": "biomass",
    "Energy storage": "storage",
    "Fossil Brown coal/Lignite": "lignite",
    "Fossil Coal-derived gas": "gas",
    "Fossil Gas": "gas",
    "Fossil Hard coal": "coal",
    "Fossil Oil": "oil",
    "Fossil Oil shale": "oil",
    "Fossil Peat": "lignite",
    "Geothermal": "geothermal",
    "Hydro Pumped Storage": "storage",
    "Hydro Run-of-river and poundage": "hydro_run_of_river",
    "Hydro Run-of-river and pondage": "hydro_run_of_river",
    "Hydro Water Reservoir": "hydro_reservoir",
    "Marine": "other_renewable",
    "Nuclear": "nuclear",
    "Other": "other",
    "Other renewable": "other_renewable",
    "Solar": "solar",
    "Waste": "waste",
    "Wind Offshore": "wind_offshore",
    "Wind Onshore": "wind_onshore",
}
"""ENTSO-E production types by name -> fuels of the factor table. Storage has no factor."""

PSR_TYPES = {
    "B01": "biomass",
    "B02": "lignite",
    "B03": "gas",  # coal-derived gas
    "B04": "gas",
    "B05": "coal",
    "B06": "oil",
    "B07": "oil",  # oil shale
    "B08": "lignite",  # peat
    "B09": "geothermal",
    "B10": "storage",
    "B11": "hydro_run_of_river",
    "B12": "hydro_reservoir",
    "B13": "other_renewable",  # marine
    "B14": "nuclear",
    "B15": "other_renewable",
    "B16": "solar",
    "B17": "waste",
    "B18": "wind_offshore",
    "B19": "wind_onshore",
    "B20": "other",
    "B25": "storage",
}
"""ENTSO-E code list, production types -> fuels of the factor table."""

EIA_FUELS = {
    "BAT": "storage",
    "COL": "coal",
    "GEO": "geothermal",
    "NG": "gas",
    "NUC": "nuclear",
    "OES": "storage",
    "OIL": "oil",
    "OTH": "other",
    "PS": "storage",
    "SNB": "solar",
    "SUN": "solar",
    "UES": "storage",
    "UNK": "other",
    "WAT": "hydro_reservoir",
    "WIN": "wind_onshore",
    "WNB": "wind_onshore",
    "WND": "wind_onshore",
}
"""EIA-930 energy sources -> fuels of the factor table."""

ELECTRICITY_MAPS_FUELS = {
    "battery discharge": "storage",
    "battery storage": "storage",
    "biomass": "biomass",
    "coal": "coal",
    "gas": "gas",
    "geothermal": "geothermal",
    "hydro": "hydro_reservoir",
    "hydro discharge": "storage",
    "hydro storage": "storage",
    "nuclear": "nuclear",
    "oil": "oil",
    "solar": "solar",
    "unknown": "other",
    "wind": "wind_onshore",
}
"""Electricity Maps' modes of production -> fuels of the factor table; it tells no kinds of wind and hydro apart."""

SMARD_TYPES = {
    "Biomasse": "biomass",
    "Biomass": "biomass",
    "Wasserkraft": "hydro_run_of_river",
    "Hydropower": "hydro_run_of_river",
    "Wind Offshore": "wind_offshore",
    "Wind Onshore": "wind_onshore",
    "Photovoltaik": "solar",
    "Photovoltaics": "solar",
    "Sonstige Erneuerbare": "other_renewable",
    "Other renewable": "other_renewable",
    "Kernenergie": "nuclear",
    "Nuclear": "nuclear",
    "Braunkohle": "lignite",
    "Lignite": "lignite",
    "Steinkohle": "coal",
    "Hard coal": "coal",
    "Erdgas": "gas",
    "Fossil gas": "gas",
    "Pumpspeicher": "storage",
    "Hydro pumped storage": "storage",
    "Sonstige Konventionelle": "other",
    "Other conventional": "other",
}
"""SMARD's kinds of generation, in German and English -> fuels of the factor table."""
